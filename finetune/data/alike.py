"""Pictures that look the same: re-encoded, resized, a little cropped, brightened or mirrored copies.

A picture is brought to 32 x 32 grey values; of their cosine transform the lowest 16 x 16 coefficients are kept, without
the first, which is the brightness. So far it is a perceptual hash (C. Zauner, "Implementation and Benchmarking of
Perceptual Image Hash Functions", 2010), which would go on to keep signs alone. Here the fourth root of what exceeds the
noise stays with the sign: small waves count nearly as much as large ones, those that compression makes up do not, and
smooth pictures are recognised too. Two pictures are near copies if the cosine between their traces is high.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

SIDE = 32  # of the grey picture
LOWEST = 16  # coefficients in each direction
LENGTH = LOWEST**2 - 1
NOISE = 2.0  # grey levels (of 255, orthonormal transform) that compression adds to a coefficient or takes from it
ROOT = 1 / 4

# Cosine between near copies. `python -m benchmarks.alike DIR` shows what a number finds, and what it takes for copies
# wrongly; of 5.8 million pairs of photos of clothes, laid flat on plain ground, none that differ came above 0.83.
LEAST_COSINE = 0.85

# Below this deviation of its grey values (of 255) a picture has no content to compare.
LEAST_CONTRAST = 2.0

# With more near copies of a picture than this, on average, the pictures are of one kind (digits, frames of a film)
# and what looks the same need not be the same.
MOST_A_PICTURE = 5.0
BLOCK = 512  # pictures compared with all others at a time

# What mirroring a picture left to right multiplies its coefficients by: odd waves across it change sign.
MIRROR = np.tile(np.where(np.arange(LOWEST) % 2, np.float32(-1), np.float32(1)), LOWEST)[1:]

Trace = NDArray[np.float16]  # (LENGTH,), of length 1


def trace_of(image: Image.Image) -> Trace | None:
    """Return what tells near copies of an upright picture, or None where it is of one colour, almost."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, np.float32)
    if grey.std() < LEAST_CONTRAST:
        return None
    waves = dctn(grey, norm="ortho")[:LOWEST, :LOWEST].ravel()[1:]
    damped = np.sign(waves) * np.maximum(np.abs(waves) - NOISE, 0) ** ROOT
    length = float(np.linalg.norm(damped))
    return (damped / length).astype(np.float16) if length else None


def near_copies(
    traces: Sequence[Trace | None],
    least: float = LEAST_COSINE,
    show: Callable[[int, int | None], None] | None = None,
) -> list[tuple[int, int]] | None:
    """Return the pairs (i, j), i < j, of pictures that look the same, as they are or mirrored.

    Args:
        traces: of each picture, as `trace_of` gives them; None is like nothing.
        least: cosine between near copies.
        show: called with how many pictures are compared, and of how many.

    Returns:
        The pairs in order, or None where there are so many that the pictures are merely of one kind.
    """
    index = np.array([number for number, some in enumerate(traces) if some is not None], dtype=np.int64)
    known = np.array([some for some in traces if some is not None], np.float32).reshape(-1, LENGTH)
    pairs: list[tuple[int, int]] = []
    for done, found in _pairs(known, least):
        if 2 * (len(pairs) + len(found)) > MOST_A_PICTURE * max(len(index), 20):
            return None
        pairs += [(int(index[i]), int(index[j])) for i, j in found]
        if show is not None:
            show(done, len(index))
    return pairs


def _pairs(traces: NDArray[np.float32], least: float) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield how many pictures are compared, and the pairs (n, 2) that they add."""
    mirrored = traces * MIRROR
    for start in range(0, len(traces), BLOCK):
        some = traces[start : start + BLOCK]
        near = (some @ traces[start:].T >= least) | (some @ mirrored[start:].T >= least)
        yield start + len(some), np.argwhere(np.triu(near, 1)).astype(np.int64) + start
