"""Exact duplicates of files, and near copies of images by a perceptual hash."""

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
SIDE = 32  # of the grey image that is hashed, in pixels
FREQUENCIES = 16  # lowest ones that are kept, in each direction
LENGTH = FREQUENCIES**2 - 1  # of a hash, without the constant part
NOISE = 2.0  # grey levels (of 255, orthonormal transform) by which compression changes a coefficient
ROOT = 1 / 4  # power that damps large coefficients

# Cosine between near copies. `python -m benchmarks.oneoff.near_duplicates DIR` shows what a threshold finds, and which
# pairs it finds wrongly; of 5.8 million pairs of different photos of clothes, laid flat on plain ground, none came
# above 0.83.
MIN_COSINE = 0.85
MIN_CONTRAST = 2.0  # standard deviation of grey values (of 255) below which an image has no content to compare
# With more near copies per image, the images are of one kind (digits, frames of a film), not copies.
MAX_PAIRS_PER_IMAGE = 5.0
BLOCK = 512  # images compared with all others at a time
# Mirroring an image left to right multiplies its coefficients by this: odd waves across it change sign.
MIRROR = np.tile(np.where(np.arange(FREQUENCIES) % 2, np.float32(-1), np.float32(1)), FREQUENCIES)[1:]

PerceptualHash = NDArray[np.float16]  # (LENGTH,), of length 1


def size_and_ends(path: Path) -> tuple[int, bytes]:
    """Return a file's size, and its first and last 16 KiB: all of it if it is not larger.

    10,000 photos take seconds that way, not minutes; photos that differ at all differ there, as they are compressed.

    Raises:
        DataError: the file can't be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            content = file.read(SAMPLE_BYTES)
            if size > 2 * SAMPLE_BYTES:
                file.seek(-SAMPLE_BYTES, 2)
            return size, content + file.read(SAMPLE_BYTES)
    except OSError as error:
        raise DataError(f"data: {path} can't be read ({error.strerror}). Fix it or take it out") from error


def exact_duplicates(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of files with equal bytes, in the order of `paths`; empty files are ignored."""
    by_sample: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for path in paths:
        size, content = size_and_ends(path)
        by_sample[size, hashlib.sha256(content).digest()].append(path)
    groups: defaultdict[tuple[int, bytes], list[Path]] = defaultdict(list)
    for (size, digest), candidates in by_sample.items():
        if size and len(candidates) > 1:
            for path in candidates:  # the sample of a small file is all of it
                groups[size, digest if size <= 2 * SAMPLE_BYTES else content_hash(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def content_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def perceptual_hash(image: Image.Image) -> PerceptualHash | None:
    """Return the low frequencies of an upright image, similar for near copies; None if it is almost one colour."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, np.float32)
    if grey.std() < MIN_CONTRAST:
        return None
    waves = dctn(grey, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    damped = np.sign(waves) * np.maximum(np.abs(waves) - NOISE, 0) ** ROOT
    length = float(np.linalg.norm(damped))
    return (damped / length).astype(np.float16) if length else None


def near_copies(
    hashes: Sequence[PerceptualHash | None], on_progress: Callable[[int, int | None], None] | None = None
) -> list[tuple[int, int]] | None:
    """Return the pairs (i, j), i < j, of images that look the same, possibly mirrored.

    Args:
        hashes: of each image, by `perceptual_hash`; None resembles nothing.
        on_progress: called with the number of images compared, and the total.

    Returns:
        The pairs in order, or None if there are so many that the images are merely of one kind.
    """
    positions = np.array([i for i, image_hash in enumerate(hashes) if image_hash is not None], dtype=np.int64)
    matrix = np.array([image_hash for image_hash in hashes if image_hash is not None], np.float32).reshape(-1, LENGTH)
    pairs: list[tuple[int, int]] = []
    for compared, new_pairs in _pairs_by_block(matrix):
        if 2 * (len(pairs) + len(new_pairs)) > MAX_PAIRS_PER_IMAGE * max(len(positions), 20):
            return None
        pairs += [(int(positions[i]), int(positions[j])) for i, j in new_pairs]
        if on_progress is not None:
            on_progress(compared, len(positions))
    return pairs


def _pairs_by_block(hashes: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the number of images compared, and the further pairs (n, 2) among them."""
    mirrored = hashes * MIRROR
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK]
        near = (block @ hashes[start:].T >= MIN_COSINE) | (block @ mirrored[start:].T >= MIN_COSINE)
        yield start + len(block), np.argwhere(np.triu(near, 1)).astype(np.int64) + start
