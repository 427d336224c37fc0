"""What one pass over a split is fed with; batch_source.py makes it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.cache.activation_cache import CHUNK, ActivationCache
from finetune.cache.activation_reader import ActivationReader
from finetune.cache.pixel_cache import DecodedImages
from finetune.cache.reuse import ActivationKey, view_at, view_stream_name
from finetune.config import Config
from finetune.data.augmentation import mix, train_transform
from finetune.data.dataset import EpochBatchSampler, ImageDataset, Loader, make_loader
from finetune.data.splits import Sample, Splits
from finetune.data.transforms import Preprocessing, eval_transform, normalise, side_at
from finetune.seeds import stream_seed
from finetune.system.signals import block_signals
from finetune.training.metering import PhaseTimer


class BatchStream(NamedTuple):
    """The batches of one pass.

    Attributes:
        start: the block that the inputs enter: 0 for pictures; the number of blocks for features before the head.
        steps: batches of a whole pass, wherever this one begins.
        batches: inputs (B, ...) float32 and labels, on the device that computes: (B,) int64, or for training on mixed
            pictures (B, classes) float32 (see augmentation.py).
    """

    start: int
    steps: int
    batches: Iterable[tuple[Tensor, Tensor]]


Batch = tuple[Tensor, Tensor]  # inputs and labels, see batch_source.py


@dataclass
class BatchSource:
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
    activations: ActivationCache
    open_pixels: Callable[[str], DecodedImages | None]
    workers: int
    _pixels: dict[str, DecodedImages | None] = field(default_factory=dict)
    _loaders: dict[str, tuple[Loader, EpochBatchSampler]] = field(default_factory=dict)
    _labels: dict[str, Tensor] = field(default_factory=dict)

    def train(self, epoch: int, first: int, cut: int, clock: PhaseTimer) -> BatchStream:
        """Return an epoch's batches from batch `first` on, when `epoch` are finished and blocks < `cut` are frozen."""
        config = self.config
        if cut and config.views:
            view = view_at(epoch, config.views, config.seed)
            rows = self._rows(ActivationKey("train", view, cut), clock)
            augmented: str | None = view_stream_name(view)
        else:
            rows, augmented = None, None  # numbers of this seed and epoch alone
        labels = [picture.label for picture in self.splits.train] if config.balance == "sampler" else None
        batches = EpochBatchSampler(len(self.splits.train), config.batch_size, config.seed, labels)
        if rows is None:
            loader, batches = self._loader("train", batches, clock)
        batches.epoch, batches.first, batches.draw = epoch, first, augmented
        batches.side = self.to.crop_px if cut else side_at(epoch, config.epochs, config.start_px, self.to.crop_px)
        if rows is None:
            return BatchStream(0, len(batches), self._mixed(self._pictures(loader), epoch, first))
        return BatchStream(cut, len(batches), self._activations("train", rows, batches))

    def _mixed(self, batches: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        """Return whole batches, mixed if that is asked for: how memory cuts them later makes no difference."""
        mixup, cutmix, seed = self.config.mixup, self.config.cutmix, self.config.seed
        if not mixup and not cutmix:
            return batches
        return (
            mix(images, labels, len(self.splits.classes), mixup, cutmix, stream_seed(seed, "mix", epoch, step))
            for step, (images, labels) in enumerate(batches, start=first)
        )

    def val(self, cut: int, clock: PhaseTimer) -> BatchStream:
        """Return the batches of val in its order; blocks < `cut` are frozen."""
        return self._evaluation("val", cut, clock)

    def test(self, cut: int, clock: PhaseTimer) -> BatchStream:
        """Return the batches of the test split in its order; blocks < `cut` have never trained."""
        return self._evaluation("test", cut, clock)

    def _evaluation(self, split: str, cut: int, clock: PhaseTimer) -> BatchStream:
        rows = self._rows(ActivationKey(split, None, cut), clock)
        batches = EpochBatchSampler(len(getattr(self.splits, split)), self.config.batch_size, None)
        if rows is None:
            loader, batches = self._loader(split, batches, clock)
            return BatchStream(0, len(batches), self._pictures(loader))
        return BatchStream(cut, len(batches), self._activations(split, rows, batches))

    def _rows(self, need: ActivationKey, clock: PhaseTimer) -> ActivationReader | None:
        def in_order(first: int) -> Iterable[Tensor]:
            batches = EpochBatchSampler(len(getattr(self.splits, need.split)), CHUNK, None)
            loader, batches = self._loader(need.split, batches, clock, "in order")
            batches.first = first // CHUNK
            if need.view is not None:
                batches.draw, batches.side = view_stream_name(need.view), self.to.crop_px
            return (inputs for inputs, _ in self._pictures(loader))

        with clock.on("cache"):
            return self.activations.rows(need, in_order)

    def _loader(
        self, split: str, batches: EpochBatchSampler, clock: PhaseTimer, kind: str = ""
    ) -> tuple[Loader, EpochBatchSampler]:
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
            pictures = ImageDataset(
                self.splits.root, getattr(self.splits, split), self.to, transform, self._pixels[split]
            )
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

    def _activations(self, split: str, rows: ActivationReader, batches: EpochBatchSampler) -> Iterator[Batch]:
        if split not in self._labels:
            pictures: Sequence[Sample] = getattr(self.splits, split)
            self._labels[split] = torch.tensor([picture.label for picture in pictures], device=self.device)
        for keys in batches:
            indices = [index for _, index, _ in keys]
            yield rows.take(indices, self.device), self._labels[split][indices]
