"""What one pass over a split is fed with; feed.py makes it."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor


class Fed(NamedTuple):
    """The batches of one pass.

    Attributes:
        start: the block that the inputs enter: 0 for pictures; the number of blocks for features before the head.
        steps: batches of a whole pass, wherever this one begins.
        batches: inputs (B, ...) float32 and labels, on the device that computes: (B,) int64, or for training on mixed
            pictures (B, classes) float32 (see mixing.py).
    """

    start: int
    steps: int
    batches: Iterable[tuple[Tensor, Tensor]]
