"""Which run named which test picture rightly, and what that says of means and differences: a bootstrap of both.

An accuracy changes with the pictures that happened to be tested and with the seed that happened to train. A bootstrap
that draws both anew shows how far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from analysis.stats.tests import LEVEL

DRAWS = 4000  # of the bootstrap; the width of a 95% interval then moves by some hundredths
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CorrectnessMatrix:
    """What runs made of test pictures.

    Attributes:
        runs: names, (runs,), sorted.
        pictures: (pictures,), sorted: data fingerprint and path.
        right: (runs, pictures) 1 or 0; NaN where a run was not tested on a picture, as in another fold.
    """

    runs: tuple[str, ...]
    pictures: tuple[str, ...]
    right: Floats

    def rows(self, names: Sequence[str]) -> list[int]:
        """Return the positions of these runs, sorted; those that are not in here are passed over."""
        wanted = set(names)
        return [row for row, name in enumerate(self.runs) if name in wanted]


def bootstrap(
    outcomes: CorrectnessMatrix, groups: Sequence[Sequence[int]], rng: np.random.Generator, draws: int = DRAWS
) -> Floats:
    """Return mean accuracies with pictures and runs drawn anew, (draws, groups); equal generators give equal draws.

    Each draw takes as many pictures as there are, with replacement and the same ones for all groups, so that columns
    can be subtracted: that is what makes a comparison paired. And of each group's n runs it takes n - 1 with
    replacement, since n of so few would show too small a spread (Rao and Wu, JASA 1988, section 2). Drawing rows and
    columns of such a table independently gives a variance that errs to the large side, if at all (Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 2007); of what it rests on, `spread` takes account.

    Args:
        groups: of each, the positions of its runs, at least one.
    """
    known = ~np.isnan(outcomes.right)
    marks = np.where(known, outcomes.right, 0.0).astype(np.float32).T
    seen = known.astype(np.float32).T
    pictures, whole = len(outcomes.pictures), bool(known.all())
    rights, counts = np.empty((draws, marks.shape[1])), np.full((draws, marks.shape[1]), float(pictures))
    for first in range(0, draws, 256):  # some rows at a time: all weights at once would be large
        rows = range(first, min(first + 256, draws))
        weights = np.stack([np.bincount(rng.integers(0, pictures, pictures), minlength=pictures) for _ in rows])
        rights[rows] = weights.astype(np.float32) @ marks
        if not whole:
            counts[rows] = weights.astype(np.float32) @ seen
    means = np.empty((draws, len(groups)))
    for column, group in enumerate(groups):
        taken = rng.integers(0, len(group), (draws, max(len(group) - 1, 1)))
        chosen = np.asarray(group)[taken]
        total = np.take_along_axis(counts, chosen, axis=1).sum(axis=1)
        right = np.take_along_axis(rights, chosen, axis=1).sum(axis=1)
        means[:, column] = np.divide(right, total, out=np.full(draws, np.nan), where=total > 0)
    return means


class StandardError(NamedTuple):
    """How far a mean, or a difference of means, may lie from what would be found on all pictures with all seeds.

    Attributes:
        error: its standard error, a fraction of accuracy.
        freedom: degrees of freedom of that: few where it rests on how few runs differ, infinite where on pictures.
    """

    error: float
    freedom: float


def standard_error(drawn: Floats, *accuracies: Sequence[float]) -> StandardError:
    """Return the spread of what a bootstrap has drawn, which knows how few runs it was drawn from.

    The percentiles of draws from three runs reach no further than these three do, and so miss the truth far too often
    where seeds differ more than pictures can account for. Here the variance of the draws, at least that of the runs'
    means, gives a t interval. Its degrees of freedom are those of the part that the runs' differences have in it
    (Satterthwaite, Biometrics Bulletin 1946); what is due to pictures is known from all of them.

    Args:
        drawn: (draws,) means, or differences of two.
        accuracies: of the runs of each mean in them.
    """
    parts = [(variance(values) / len(values), len(values) - 1) for values in accuracies if len(values) > 1]
    total = max(float(np.nanvar(drawn)), sum(part for part, _ in parts))
    doubt = sum(part**2 / freedom for part, freedom in parts)
    return StandardError(math.sqrt(total), total**2 / doubt if doubt else math.inf)


def t_interval(middle: float, around: StandardError, least: float = 0.0) -> tuple[float, float]:
    """Return the LEVEL interval around what was found, between `least` and 1."""
    half = float(t.ppf((1 + LEVEL) / 2, around.freedom)) * around.error if around.error else 0.0
    return max(middle - half, least), min(middle + half, 1.0)


def p_value(difference: float, around: StandardError) -> float:
    """Return the two-sided p-value of a difference of means: how often chance alone makes one as large?"""
    if not around.error:
        return 0.0 if difference else 1.0
    return float(2 * t.sf(abs(difference) / around.error, around.freedom))
