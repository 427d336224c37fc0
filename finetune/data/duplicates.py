"""Files that are copies of each other, byte for byte; and what tells a file's content at a glance."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from finetune.errors import DataError

SAMPLE_BYTES = 16 * 1024


def size_and_ends(path: Path) -> tuple[int, bytes]:
    """Return a file's size, and its first and last 16 KiB: all of it if it is not larger.

    10,000 photos take seconds that way, not minutes; photos that differ at all differ there, as they are compressed.

    Raises:
        DataError: the file can't be read.
    """
    try:
        return _read_size_and_ends(path)
    except OSError as error:
        raise DataError(f"data: {path} can't be read ({error.strerror}). Mend it or take it out") from error


def _read_size_and_ends(path: Path) -> tuple[int, bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        content = file.read(SAMPLE_BYTES)
        if size > 2 * SAMPLE_BYTES:
            file.seek(-SAMPLE_BYTES, 2)
        return size, content + file.read(SAMPLE_BYTES)


def exact_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of two and more files with the same content, in the order of `paths`; empty files count not."""
    alike: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for path in paths:
        size, content = size_and_ends(path)
        alike[size, hashlib.sha256(content).digest()].append(path)
    groups: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for (size, digest), same in alike.items():
        if size and len(same) > 1:
            for path in same:  # small files are compared whole by their sample
                groups[size, digest if size <= 2 * SAMPLE_BYTES else content_hash(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def content_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


SIDE = 32  # of the grey image


LOWEST = 16  # coefficients in each direction


LENGTH = LOWEST**2 - 1


NOISE = 2.0  # grey levels (of 255, orthonormal transform) that compression adds to a coefficient or takes from it


ROOT = 1 / 4


# Cosine between near copies. `python -m benchmarks.oneoff.near_duplicates DIR` shows what a threshold finds, and what
# it takes for copies wrongly; of 5.8 million pairs of different photos of clothes, laid flat on plain ground, none
# came above 0.83.
MIN_COSINE = 0.85


# Below this deviation of its grey values (of 255) an image has no content to compare.
MIN_CONTRAST = 2.0


# With more near copies of an image than this, on average, the images are of one kind (digits, frames of a film)
# and what looks the same need not be the same.
MAX_PAIRS_PER_IMAGE = 5.0


BLOCK = 512  # images compared with all others at a time


# What mirroring an image left to right multiplies its coefficients by: odd waves across it change sign.
MIRROR = np.tile(np.where(np.arange(LOWEST) % 2, np.float32(-1), np.float32(1)), LOWEST)[1:]


PerceptualHash = NDArray[np.float16]  # (LENGTH,), of length 1


def perceptual_hash(image: Image.Image) -> PerceptualHash | None:
    """Return what tells near copies of an upright image, or None where it is of one colour, almost."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, np.float32)
    if grey.std() < MIN_CONTRAST:
        return None
    waves = dctn(grey, norm="ortho")[:LOWEST, :LOWEST].ravel()[1:]
    damped = np.sign(waves) * np.maximum(np.abs(waves) - NOISE, 0) ** ROOT
    length = float(np.linalg.norm(damped))
    return (damped / length).astype(np.float16) if length else None


def near_copies(
    traces: Sequence[PerceptualHash | None],
    least: float = MIN_COSINE,
    show: Callable[[int, int | None], None] | None = None,
) -> list[tuple[int, int]] | None:
    """Return the pairs (i, j), i < j, of images that look the same, as they are or mirrored.

    Args:
        traces: of each image, as `trace_of` gives them; None is like nothing.
        least: cosine between near copies.
        show: called with how many images are compared, and of how many.

    Returns:
        The pairs in order, or None where there are so many that the images are merely of one kind.
    """
    index = np.array([number for number, some in enumerate(traces) if some is not None], dtype=np.int64)
    known = np.array([some for some in traces if some is not None], np.float32).reshape(-1, LENGTH)
    pairs: list[tuple[int, int]] = []
    for done, found in _pairs(known, least):
        if 2 * (len(pairs) + len(found)) > MAX_PAIRS_PER_IMAGE * max(len(index), 20):
            return None
        pairs += [(int(index[i]), int(index[j])) for i, j in found]
        if show is not None:
            show(done, len(index))
    return pairs


def _pairs(traces: NDArray[np.float32], least: float) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield how many images are compared, and the pairs (n, 2) that they add."""
    mirrored = traces * MIRROR
    for start in range(0, len(traces), BLOCK):
        some = traces[start : start + BLOCK]
        near = (some @ traces[start:].T >= least) | (some @ mirrored[start:].T >= least)
        yield start + len(some), np.argwhere(np.triu(near, 1)).astype(np.int64) + start
