"""Batches of train, val and test: images, or cached activations of the frozen prefix."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.cache.activation_cache import ActivationCache
from finetune.cache.activation_fill import CHUNK
from finetune.cache.activation_reader import ActivationReader
from finetune.cache.pixel_cache import DecodedImages
from finetune.cache.reuse import ActivationKey, view_at, view_stream_name
from finetune.data.augmentation import mix, train_transform
from finetune.data.dataset import EpochBatchSampler, ImageDataset, Loader, make_loader
from finetune.data.splits import Sample, Splits
from finetune.data.transforms import eval_transform, normalise, side_at
from finetune.pretrained import Preprocessing
from finetune.seeds import stream_seed
from finetune.system.signals import block_signals
from finetune.training.metering import PhaseTimer

Batch = tuple[Tensor, Tensor]  # inputs and labels, as in BatchStream.batches


class BatchStream(NamedTuple):
    """The batches of one pass over a split.

    Attributes:
        start: index of the block that the inputs enter: 0 for images, the number of blocks for pooled features.
        cut: number of frozen blocks; `start` is 0 or `cut`.
        steps: number of batches in a complete pass, also if this one starts later.
        batches: inputs (B, ...) float32 and labels, on the computing device: (B,) int64, or (B, classes) float32 where
            training mixes images (see data/augmentation.py).
    """

    start: int
    cut: int
    steps: int
    batches: Iterable[Batch]


@dataclass(frozen=True)
class BatchSettings:
    """How batches are drawn: the fields of these names of a resolved config."""

    batch_size: int
    seed: int
    epochs: int
    balance: str
    views: int | None
    start_px: int | None
    augment: str
    erasing: float
    mixup: float
    cutmix: float


@dataclass
class BatchSource:
    """Batches of train, val and test of one run.

    Attributes:
        open_pixels: split -> its decoded images, after filling the cache if needed; None to decode them each time.
        workers: number of processes that load images.
    """

    settings: BatchSettings
    splits: Splits
    preprocessing: Preprocessing
    device: torch.device
    activations: ActivationCache
    open_pixels: Callable[[str], DecodedImages | None]
    workers: int
    _pixels: dict[str, DecodedImages | None] = field(default_factory=dict)
    _loaders: dict[str, tuple[Loader, EpochBatchSampler]] = field(default_factory=dict)
    _labels: dict[str, Tensor] = field(default_factory=dict)

    def train(self, epoch: int, first: int, cut: int, timer: PhaseTimer) -> BatchStream:
        """Return the training batches after `epoch` epochs, from batch `first` on, with `cut` frozen blocks."""
        settings, full_px = self.settings, self.preprocessing.crop_px
        reader, view_name = None, None  # without a view, the random numbers are those of this seed and epoch alone
        if cut and settings.views:
            view = view_at(epoch, settings.views, settings.seed)
            reader, view_name = self._open_activations(ActivationKey("train", view, cut), timer), view_stream_name(view)
        labels = [sample.label for sample in self.splits.train] if settings.balance == "sampler" else None
        sampler = EpochBatchSampler(len(self.splits.train), settings.batch_size, settings.seed, labels)
        if reader is None:
            loader, sampler = self._loader("train", sampler, timer)
        sampler.epoch, sampler.first, sampler.draw = epoch, first, view_name
        sampler.side = full_px if cut else side_at(epoch, settings.epochs, settings.start_px, full_px)
        if reader is None:
            return BatchStream(0, cut, len(sampler), self._mixed(self._image_batches(loader), epoch, first))
        return BatchStream(cut, cut, len(sampler), self._activation_batches("train", reader, sampler))

    def evaluation(self, split: str, cut: int, timer: PhaseTimer) -> BatchStream:
        """Return the batches of val or test in the split's order; the first `cut` blocks have never been trained."""
        reader = self._open_activations(ActivationKey(split, None, cut), timer)
        sampler = EpochBatchSampler(len(self._samples(split)), self.settings.batch_size, None)
        if reader is None:
            loader, sampler = self._loader(split, sampler, timer)
            return BatchStream(0, cut, len(sampler), self._image_batches(loader))
        return BatchStream(cut, cut, len(sampler), self._activation_batches(split, reader, sampler))

    def _samples(self, split: str) -> Sequence[Sample]:
        samples: Sequence[Sample] = getattr(self.splits, split)
        return samples

    def _mixed(self, batches: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        """Apply MixUp or CutMix, if set, to complete batches: so micro-batches change nothing."""
        mixup, cutmix, seed = self.settings.mixup, self.settings.cutmix, self.settings.seed
        if not mixup and not cutmix:
            return batches
        return (
            mix(images, labels, len(self.splits.classes), mixup, cutmix, stream_seed(seed, "mix", epoch, step))
            for step, (images, labels) in enumerate(batches, start=first)
        )

    def _open_activations(self, key: ActivationKey, timer: PhaseTimer) -> ActivationReader | None:
        def images_in_order(first: int) -> Iterable[Tensor]:
            sampler = EpochBatchSampler(len(self._samples(key.split)), CHUNK, None)
            sampler.first = first // CHUNK
            if key.view is not None:
                sampler.draw, sampler.side = view_stream_name(key.view), self.preprocessing.crop_px
            loader = self._new_loader(key.split, sampler, timer)  # used once: its processes end with the pass
            return (inputs for inputs, _ in self._image_batches(loader))

        with timer.phase("cache"):
            return self.activations.open(key, images_in_order)

    def _loader(self, split: str, sampler: EpochBatchSampler, timer: PhaseTimer) -> tuple[Loader, EpochBatchSampler]:
        """Return the loader of a split's images, with its processes, and its sampler: `sampler` at the first call."""
        if split not in self._loaders:
            self._loaders[split] = self._new_loader(split, sampler, timer), sampler
        return self._loaders[split]

    def _new_loader(self, split: str, sampler: EpochBatchSampler, timer: PhaseTimer) -> Loader:
        settings, preprocessing = self.settings, self.preprocessing
        if split not in self._pixels:
            with timer.phase("cache"):
                self._pixels[split] = self.open_pixels(split)
        if split == "train":
            transform = train_transform(preprocessing, settings.augment, settings.erasing)
        else:
            transform = eval_transform(preprocessing)
        images = ImageDataset(self.splits.root, self._samples(split), preprocessing, transform, self._pixels[split])
        return make_loader(images, sampler, self.workers, pin=self.device.type == "cuda")

    def _image_batches(self, loader: Loader) -> Iterator[Batch]:
        """Return the loader's batches on the device. Starts the loader at once, as that draws from torch's stream."""
        with block_signals():
            started = iter(loader)

        def batches() -> Iterator[Batch]:
            for images, labels in started:
                yield (
                    normalise(images.to(self.device, non_blocking=True), self.preprocessing),
                    labels.to(self.device, non_blocking=True),
                )

        return batches()

    def _activation_batches(self, split: str, reader: ActivationReader, sampler: EpochBatchSampler) -> Iterator[Batch]:
        if split not in self._labels:
            self._labels[split] = torch.tensor([sample.label for sample in self._samples(split)], device=self.device)
        for requests in sampler:
            indices = [index for _, index, _ in requests]
            yield reader.take(indices, self.device), self._labels[split][indices]
