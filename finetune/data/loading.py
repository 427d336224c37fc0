"""Batches of pictures: read, oriented, transformed; the same for a seed whatever the number of loader processes."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.data.splits import Picture
from finetune.errors import DataError
from finetune.signals import finish_first

Loader = DataLoader[Any]  # of images (B, 3, H, W) float32 and labels (B,) int64
Key = tuple[int, int]  # (epoch, index of the picture in its split)


def read_picture(path: Path) -> Image.Image:
    """Return the picture as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: the file can't be read as a picture.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as a picture ({error}). Repair it or take it out") from error


def stream_seed(*parts: int | str) -> int:
    """Return a seed for the random stream named by `parts`; streams of different names are independent."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


class Pictures(Dataset[tuple[Tensor, int]]):
    """One split. Item (epoch, index) -> image (3, H, W) float32, label; augmentation depends on both, and the seed."""

    def __init__(self, root: Path, pictures: Sequence[Picture], transform: nn.Module, seed: int) -> None:
        self.root, self.pictures, self.transform, self.seed = root, pictures, transform, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        epoch, index = key
        picture = self.pictures[index]
        image = read_picture(self.root / picture.path)
        # Transforms draw from torch's global CPU stream, which is lent to this picture and given back. (Seeding with
        # torch.manual_seed would also queue a call for every GPU, for every picture.)
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(stream_seed(self.seed, "augment", epoch, index))
        try:
            return self.transform(image), picture.label
        finally:
            torch.set_rng_state(before)


class Batches(Sampler[list[Key]]):
    """Batches of keys for one epoch after another; set `epoch`, and the `first` batch to make, before iterating.

    Args:
        count: pictures in the split.
        batch_size: pictures in a batch. A last batch of one joins the batch before it: batch-norm can't train on one.
        seed: the order's seed, or None to keep the order of the split.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.epoch = self.first = 0

    def _starts(self) -> list[int]:
        starts = list(range(0, self.count, self.batch_size))
        lone_last = self.seed is not None and len(starts) > 1 and self.count - starts[-1] == 1
        return starts[:-1] if lone_last else starts

    def __len__(self) -> int:
        """Return how many batches a whole epoch has, wherever it is to begin."""
        return len(self._starts())

    def __iter__(self) -> Iterator[list[Key]]:
        order = list(range(self.count))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator).tolist()
        starts = self._starts()
        for start, end in list(zip(starts, [*starts[1:], self.count], strict=True))[self.first :]:
            yield [(self.epoch, index) for index in order[start:end]]


def make_loader(dataset: Pictures, batches: Batches, workers: int, pin: bool) -> Loader:
    """Return a loader of images (B, 3, H, W) float32 and labels (B,) int64; `workers` changes no value."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=finish_first,
    )
