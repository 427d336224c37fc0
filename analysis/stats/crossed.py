"""Inference for runs crossed with test images: the correctness matrix, and a bootstrap of both.

An accuracy depends on the sample of test images and on the seeds of the runs; the bootstrap resamples both.
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

DRAWS = 4000  # of the bootstrap; the width of a 95% interval then varies by a few hundredths of itself
CHUNK = 256  # draws computed at a time: the weights of all at once would take too much memory
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CorrectnessMatrix:
    """Which run classified which test image correctly.

    Attributes:
        runs: names, (runs,), sorted.
        images: (images,), sorted: data fingerprint and path.
        correct: (runs, images) 1 or 0; NaN where a run was not tested on an image, as in another fold.
    """

    runs: tuple[str, ...]
    images: tuple[str, ...]
    correct: Floats

    def indices_of(self, names: Sequence[str]) -> list[int]:
        """Return the row numbers of these runs, sorted; unknown names are ignored."""
        selected = set(names)
        return [row for row, name in enumerate(self.runs) if name in selected]


def bootstrap(
    matrix: CorrectnessMatrix, groups: Sequence[Sequence[int]], rng: np.random.Generator, draws: int = DRAWS
) -> Floats:
    """Return bootstrap samples of mean accuracies, (draws, groups); equal generators give equal samples.

    Each draw resamples the images with replacement, the same ones for all groups, so that the difference of two columns
    is paired by image. Of each group's n runs it draws n - 1 with replacement, since n of so few would underestimate
    the spread (Rao and Wu, JASA 1988, section 2). Resampling rows and columns independently overestimates the variance,
    if anything (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).

    Args:
        groups: row numbers of each group's runs, at least one.
    """
    is_tested = ~np.isnan(matrix.correct)
    correct = np.where(is_tested, matrix.correct, 0.0).astype(np.float32).T
    tested = is_tested.astype(np.float32).T
    images, is_complete = len(matrix.images), bool(is_tested.all())
    rights, counts = np.empty((draws, correct.shape[1])), np.full((draws, correct.shape[1]), float(images))
    for first in range(0, draws, CHUNK):
        rows = range(first, min(first + CHUNK, draws))
        weights = np.stack([np.bincount(rng.integers(0, images, images), minlength=images) for _ in rows])
        rights[rows] = weights.astype(np.float32) @ correct
        if not is_complete:
            counts[rows] = weights.astype(np.float32) @ tested
    means = np.empty((draws, len(groups)))
    for column, group in enumerate(groups):
        drawn = np.asarray(group)[rng.integers(0, len(group), (draws, max(len(group) - 1, 1)))]
        total = np.take_along_axis(counts, drawn, axis=1).sum(axis=1)
        right = np.take_along_axis(rights, drawn, axis=1).sum(axis=1)
        means[:, column] = np.divide(right, total, out=np.full(draws, np.nan), where=total > 0)
    return means


class StandardError(NamedTuple):
    """Standard error of a mean accuracy or of a difference of two, over images and seeds.

    Attributes:
        se: a fraction of accuracy.
        df: its degrees of freedom (Welch-Satterthwaite): few where it rests on the variance between few runs, infinite
            where only images vary.
    """

    se: float
    df: float


def standard_error(samples: Floats, *accuracies: Sequence[float]) -> StandardError:
    """Return the standard error from bootstrap samples, with the degrees of freedom that the number of runs allows.

    Percentiles of samples from three runs reach no further than these runs, so their coverage is far too low where
    seeds vary more than the images account for. Instead, the variance of the samples, at least that of the runs' means,
    gives a t interval. Its degrees of freedom are those of the variance between runs in it (Satterthwaite, Biometrics
    Bulletin 1946); the variance between images is known well from all of them.

    Args:
        samples: (draws,) means, or differences of two.
        accuracies: of the runs of each mean in them.
    """
    between_runs = [(variance(values) / len(values), len(values) - 1) for values in accuracies if len(values) > 1]
    total = max(float(np.nanvar(samples)), sum(part for part, _ in between_runs))
    denominator = sum(part**2 / df for part, df in between_runs)
    return StandardError(math.sqrt(total), total**2 / denominator if denominator else math.inf)


def t_interval(estimate: float, error: StandardError, minimum: float = 0.0) -> tuple[float, float]:
    """Return the t interval around the estimate, clipped to [minimum, 1]."""
    half = float(t.ppf((1 + LEVEL) / 2, error.df)) * error.se if error.se else 0.0
    return max(estimate - half, minimum), min(estimate + half, 1.0)


def p_value(difference: float, error: StandardError) -> float:
    """Return the two-sided p-value of a t test that the difference of two means is 0."""
    if not error.se:
        return 0.0 if difference else 1.0
    return float(2 * t.sf(abs(difference) / error.se, error.df))
