"""What each epoch is fed with: pictures, or what the frozen part makes of them where a cache holds that."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune.activations import CHUNK, Activations
from finetune.clock import Clock
from finetune.config import Config
from finetune.data.augmenting import train_transform
from finetune.data.loading import Batches, Loader, Pictures, make_loader
from finetune.data.pixels import Pixels
from finetune.data.splits import Picture, Splits
from finetune.data.transforms import Preprocessing, eval_transform, normalise
from finetune.fed import Fed
from finetune.mixing import mix
from finetune.rows import Rows
from finetune.seeds import stream_seed
from finetune.sharing import Need
from finetune.system.signals import block_signals
from finetune.views import draw, side_at, view_at

Batch = tuple[Tensor, Tensor]  # inputs and labels, see fed.py


@dataclass
class Feed:
    """Feeds training, val and test of a run.

    Attributes:
        config: resolved.
        open_pixels: split -> its decoded pictures, filled first if need be; None where they are decoded each time.
        workers: processes that load pictures.
    """

    config: Config
    splits: Splits
    to: Preprocessing
    device: torch.device
    activations: Activations
    open_pixels: Callable[[str], Pixels | None]
    workers: int
    _pixels: dict[str, Pixels | None] = field(default_factory=dict)
    _loaders: dict[str, tuple[Loader, Batches]] = field(default_factory=dict)
    _labels: dict[str, Tensor] = field(default_factory=dict)

    def train(self, epoch: int, first: int, cut: int, clock: Clock) -> Fed:
        """Return an epoch's batches from batch `first` on, when `epoch` are finished and blocks < `cut` are frozen."""
        config = self.config
        if cut and config.views:
            view = view_at(epoch, config.views, config.seed)
            rows = self._rows(Need("train", view, cut), clock)
            augmented: str | None = draw(view)
        else:
            rows, augmented = None, None  # numbers of this seed and epoch alone
        labels = [picture.label for picture in self.splits.train] if config.balance == "sampler" else None
        batches = Batches(len(self.splits.train), config.batch_size, config.seed, labels)
        if rows is None:
            loader, batches = self._loader("train", batches, clock)
        batches.epoch, batches.first, batches.draw = epoch, first, augmented
        batches.side = self.to.crop_px if cut else side_at(epoch, config.epochs, config.start_px, self.to.crop_px)
        if rows is None:
            return Fed(0, len(batches), self._mixed(self._pictures(loader), epoch, first))
        return Fed(cut, len(batches), self._activations("train", rows, batches))

    def _mixed(self, batches: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        """Return whole batches, mixed if that is asked for: how memory cuts them later makes no difference."""
        mixup, cutmix, seed = self.config.mixup, self.config.cutmix, self.config.seed
        if not mixup and not cutmix:
            return batches
        return (
            mix(images, labels, len(self.splits.classes), mixup, cutmix, stream_seed(seed, "mix", epoch, step))
            for step, (images, labels) in enumerate(batches, start=first)
        )

    def val(self, cut: int, clock: Clock) -> Fed:
        """Return the batches of val in its order; blocks < `cut` are frozen."""
        return self._evaluation("val", cut, clock)

    def test(self, cut: int, clock: Clock) -> Fed:
        """Return the batches of the test split in its order; blocks < `cut` have never trained."""
        return self._evaluation("test", cut, clock)

    def _evaluation(self, split: str, cut: int, clock: Clock) -> Fed:
        rows = self._rows(Need(split, None, cut), clock)
        batches = Batches(len(getattr(self.splits, split)), self.config.batch_size, None)
        if rows is None:
            loader, batches = self._loader(split, batches, clock)
            return Fed(0, len(batches), self._pictures(loader))
        return Fed(cut, len(batches), self._activations(split, rows, batches))

    def _rows(self, need: Need, clock: Clock) -> Rows | None:
        def in_order(first: int) -> Iterable[Tensor]:
            batches = Batches(len(getattr(self.splits, need.split)), CHUNK, None)
            loader, batches = self._loader(need.split, batches, clock, "in order")
            batches.first = first // CHUNK
            if need.view is not None:
                batches.draw, batches.side = draw(need.view), self.to.crop_px
            return (inputs for inputs, _ in self._pictures(loader))

        with clock.on("cache"):
            return self.activations.rows(need, in_order)

    def _loader(self, split: str, batches: Batches, clock: Clock, kind: str = "") -> tuple[Loader, Batches]:
        """Return a loader of a split's pictures, and the sampler inside it, which is `batches` the first time.

        It is kept, with the processes that it may have; `kind` keeps loaders apart whose samplers differ.
        """
        if split + kind not in self._loaders:
            if split not in self._pixels:
                with clock.on("cache"):
                    self._pixels[split] = self.open_pixels(split)
            if split == "train":
                transform = train_transform(self.to, self.config.augment, self.config.erasing)
            else:
                transform = eval_transform(self.to)
            pictures = Pictures(self.splits.root, getattr(self.splits, split), self.to, transform, self._pixels[split])
            loader = make_loader(pictures, batches, self.workers, pin=self.device.type == "cuda")
            self._loaders[split + kind] = loader, batches
        return self._loaders[split + kind]

    def _pictures(self, loader: Loader) -> Iterator[Batch]:
        """Return what a loader gives, on the device. It starts now, and not later: that draws from torch's stream."""
        with block_signals():
            started = iter(loader)

        def batches() -> Iterator[Batch]:
            for images, labels in started:
                yield (
                    normalise(images.to(self.device, non_blocking=True), self.to),
                    labels.to(self.device, non_blocking=True),
                )

        return batches()

    def _activations(self, split: str, rows: Rows, batches: Batches) -> Iterator[Batch]:
        if split not in self._labels:
            pictures: Sequence[Picture] = getattr(self.splits, split)
            self._labels[split] = torch.tensor([picture.label for picture in pictures], device=self.device)
        for keys in batches:
            indices = [index for _, index, _ in keys]
            yield rows.take(indices, self.device), self._labels[split][indices]
