"""Pictures that look the same: re-encoded, resized, a little cropped, brightened or mirrored copies.

A picture is brought to 32 x 32 grey values; of their cosine transform the signs of the lowest 16 x 16 coefficients are
kept, without the first, which is the brightness: 255 bits (a perceptual hash as in C. Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions", 2010, but longer). Two pictures are near copies if few bits differ.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

SIDE = 32  # of the grey picture
LOWEST = 16  # coefficients in each direction
BITS = LOWEST**2 - 1

# Bits that may differ. `python -m benchmarks.alike DIR` shows what a number finds and what it takes for copies wrongly.
MOST_BITS = 32

# Below this deviation of its grey values (of 255) a picture has no content whose signs would mean anything.
LEAST_CONTRAST = 2.0

# With more near copies of a picture than this, on average, the pictures are of one kind (digits, frames of a film)
# and what looks the same need not be the same.
MOST_A_PICTURE = 5.0
BLOCK = 2048  # pictures compared with all others at a time

Bits = NDArray[np.bool_]  # (BITS,)


def bits_of(image: Image.Image) -> Bits | None:
    """Return what tells near copies of an upright picture, or None where it is of one colour, almost."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, np.float32)
    if grey.std() < LEAST_CONTRAST:
        return None
    waves = dctn(grey, norm="ortho")[:LOWEST, :LOWEST]
    return np.asarray(waves.ravel()[1:] > 0)


def near_copies(
    bits: Sequence[Bits | None],
    most: int = MOST_BITS,
    show: Callable[[int, int | None], None] | None = None,
) -> list[tuple[int, int]] | None:
    """Return the pairs (i, j), i < j, of pictures that look the same, as they are or mirrored.

    Args:
        bits: of each picture, as `bits_of` gives them; None is like nothing.
        most: bits that may differ.
        show: called with how many pictures are compared, and of how many.

    Returns:
        The pairs in order, or None where there are so many that the pictures are merely of one kind.
    """
    index = np.array([number for number, some in enumerate(bits) if some is not None], dtype=np.int64)
    pairs: list[tuple[int, int]] = []
    for done, found in _pairs(np.array([some for some in bits if some is not None]).reshape(-1, BITS), most):
        pairs += [(int(index[i]), int(index[j])) for i, j in found]
        if 2 * len(pairs) > MOST_A_PICTURE * max(len(index), 20):
            return None
        if show is not None:
            show(done, len(index))
    return pairs


def _pairs(bits: Bits, most: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield how many pictures are compared, and the pairs (n, 2) that they add."""
    # The product of two rows of +1 and -1 is the number of equal bits less that of different ones.
    signs = np.where(bits, np.float32(1), np.float32(-1))
    mirrored = signs * _mirror()
    least = BITS - 2 * most
    for start in range(0, len(signs), BLOCK):
        some = signs[start : start + BLOCK]
        near = (some @ signs[start:].T >= least) | (some @ mirrored[start:].T >= least)
        found = np.argwhere(np.triu(near, 1)).astype(np.int64) + start
        yield start + len(some), found


def _mirror() -> NDArray[np.float32]:
    """Return the factors (BITS,) that mirroring a picture left to right multiplies its coefficients by."""
    factors = np.ones((LOWEST, LOWEST), np.float32)
    factors[:, 1::2] = -1
    return factors.ravel()[1:]
