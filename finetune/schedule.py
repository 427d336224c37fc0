"""Pure functions from a step to a learning-rate multiplier in [0, 1]. Steps count from 0."""

from math import cos, pi


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Rise in a line over `warmup` steps, then fall to nearly 0 along half a cosine until `total`.

    Source: Loshchilov and Hutter, SGDR, arXiv 1608.03983, equation 5, one cycle; with a linear warm-up (Goyal et al.,
    arXiv 1706.02677, section 2.2).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= total:
        return 0.0
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, total - warmup)))


def rewarm(step: int, start: int, length: int) -> float:
    """Rise in a line over the `length` steps after `start`, when a part of the network begins to train; 0 before."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / (length + 1))
