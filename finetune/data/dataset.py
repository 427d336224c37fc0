"""Batches of images, from the cache or decoded anew; the same for a seed whatever the number of loader processes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.data.images.image_io import read_image
from finetune.data.sampling import balanced_order
from finetune.data.splits import Sample
from finetune.data.transforms import Transform, resize_for_cache, stack
from finetune.pretrained import Preprocessing
from finetune.seeds import stream_seed
from finetune.system.environment import cores
from finetune.system.signals import ignore_signals_in_worker

Loader = DataLoader[Any]  # of images (B, 3, H, W) uint8, channels last, and labels (B,) int64
SampleRequest = tuple[str, int, int | None]  # (draw, index of the image in its split, side): see Batches


class ImageSource(Protocol):
    """Decoded images by their index in a split, such as `cache.pixel_cache.DecodedImages`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, (3, H, W) uint8."""


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """One split. Item (draw, index, side) -> image (3, side, side) uint8, label; `normalise` is for the batch.

    Args:
        root: of the data, which the images' paths start from.
        preprocessing: the size of base images.
        transform: what it cuts out of a base image depends on draw and index alone.
        pixels: the split's base images where a cache has them, else None; it changes no result.
    """

    def __init__(
        self,
        root: Path,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        transform: Transform,
        pixels: ImageSource | None = None,
    ) -> None:
        if pixels is not None and len(pixels) != len(samples):
            raise ValueError(f"{len(pixels)} cached images are not those of a split of {len(samples)}")
        self.root, self.samples, self.pixels = root, samples, pixels
        self.preprocessing, self.transform = preprocessing, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleRequest) -> tuple[Tensor, int]:
        draw, index, side = key
        sample = self.samples[index]
        if self.pixels is None:
            base = resize_for_cache(read_image(self.root / sample.path), self.preprocessing)
        else:
            base = self.pixels[index]
        return self.transform(base, stream_seed("augment", draw, index), side), sample.label


class EpochBatchSampler(Sampler[list[SampleRequest]]):
    """Batches of keys for one epoch after another; set its attributes before iterating.

    Args:
        count: images in the split.
        batch_size: images in a batch. A last batch of one joins the batch before it: batch-norm can't train on one.
        seed: the order's seed, or None to keep the order of the split.
        labels: of the images, for an order in which every class comes as often (see sampling.py); None for one in
            which every image comes once. Needs a seed.

    Attributes:
        epoch: epochs finished; the order is drawn anew for each.
        first: the first batch to make.
        draw: names the random numbers that augment the images: the same name, the same squares. None for numbers of
            this seed and epoch alone, and other ones for each time that an image comes in an epoch.
        side: of the images, in pixels; None for the preprocessing's own.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None, labels: Sequence[int] | None = None) -> None:
        self.count, self.batch_size, self.seed, self.labels = count, batch_size, seed, labels
        self.epoch = self.first = 0
        self.draw: str | None = None
        self.side: int | None = None

    def _starts(self) -> list[int]:
        starts = list(range(0, self.count, self.batch_size))
        lone_last = self.seed is not None and len(starts) > 1 and self.count - starts[-1] == 1
        return starts[:-1] if lone_last else starts

    def __len__(self) -> int:
        """Return the batches of a complete epoch, whatever `first` is."""
        return len(self._starts())

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        order = list(range(self.count))
        if self.seed is not None and self.labels is not None:
            order = balanced_order(self.labels, self.seed, self.epoch)
        elif self.seed is not None:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
        keys: list[SampleRequest] = [
            (draw, index, self.side) for draw, index in zip(self._draws(order), order, strict=True)
        ]
        starts = self._starts()
        for start, end in list(zip(starts, [*starts[1:], self.count], strict=True))[self.first :]:
            yield keys[start:end]

    def _draws(self, order: Sequence[int]) -> Iterator[str]:
        """Yield the name of the numbers that augment each image of an epoch."""
        usual = f"seed {self.seed} epoch {self.epoch}" if self.draw is None else self.draw
        seen = Counter[int]()
        for index in order:
            again = self.draw is None and seen[index]  # a named draw is one square an image, and may be cached
            yield f"{usual} again {again}" if again else usual
            seen[index] += 1


def worker_count(requested: int | None, device: str) -> int:
    """Return the number of processes that load images: the configured one, or one that suits the device type.

    On the CPU the network is the slower part, and loader processes would only take cores away from it.
    """
    if requested is not None:
        return requested
    return 0 if device == "cpu" else min(8, max(1, cores() - 1))


def make_loader(dataset: ImageDataset, batches: EpochBatchSampler, workers: int, pin: bool) -> Loader:
    """Return a loader of images (B, 3, H, W) uint8 and labels (B,) int64; `workers` changes no value."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=ignore_signals_in_worker,
        collate_fn=_collate,
    )


def _collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return stack([image for image, _ in items]), torch.tensor([label for _, label in items])
