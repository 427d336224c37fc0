"""Learning-rate multipliers in [0, 1] as pure functions of the step, counted from 0."""

from collections.abc import Callable
from math import cos, pi

from finetune.models.unfreezing import UnfreezeSchedule


def cosine_with_warmup(step: int, total: int, warmup: int) -> float:
    """Return the multiplier that rises linearly over `warmup` steps, then falls to nearly 0 along half a cosine.

    Sources: Loshchilov and Hutter, SGDR, arXiv 1608.03983, equation 5, one cycle; with a linear warm-up (Goyal et al.,
    arXiv 1706.02677, section 2.2).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step >= total:
        return 0.0
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, total - warmup)))


def rewarm(step: int, start: int, length: int) -> float:
    """Return the multiplier of a block that unfreezes at step `start`: 0 before, then a linear rise over `length`."""
    if step < start:
        return 0.0
    return min(1.0, (step - start + 1) / (length + 1))


def lr_multiplier(
    schedule: UnfreezeSchedule, steps_per_epoch: int, epochs: int, warmup_epochs: float, rewarm_epochs: float
) -> Callable[[int | None, int], float]:
    """Return a function (block or None for the head, step) -> multiplier of the group's peak rate, 0 while frozen.

    All groups follow one cosine over the complete run, with a warm-up at the start; a block that unfreezes later also
    has a warm-up of its own.
    """
    total = epochs * steps_per_epoch
    warmup = round(warmup_epochs * steps_per_epoch)
    rewarm_steps = round(rewarm_epochs * steps_per_epoch)
    starts = [schedule.first_epoch(block) for block in range(schedule.blocks)]

    def multiplier(block: int | None, step: int) -> float:
        base = cosine_with_warmup(step, total, warmup)
        start = 0 if block is None else starts[block]
        if start is None:
            return 0.0
        return base if start == 0 else base * rewarm(step, start * steps_per_epoch, rewarm_steps)

    return multiplier
