"""Inference for training runs crossed with test images, which all arms share.

The design is "readers x cases" in radiology and "subjects x items" in psycholinguistics (Clark, Journal of Verbal
Learning and Verbal Behavior 12, 1973): runs are nested in arms and crossed with images. Everything is in closed form:
no random draws, and the comparison of two arms does not depend on the other arms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from analysis.stats.tests import LEVEL
from finetune.sweep.power import Components

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

    def rows_of(self, names: Sequence[str]) -> Floats:
        """Return the rows of these runs, (runs, images); unknown names are ignored."""
        selected = set(names)
        return self.correct[[row for row, name in enumerate(self.runs) if name in selected]]


@dataclass(frozen=True)
class Estimate:
    """A mean accuracy, or a difference of two, with its uncertainty for new images and new training runs.

    Attributes:
        value: a fraction of accuracy.
        se: its standard error; NaN where it can't be estimated.
        df: degrees of freedom of the standard error (Welch-Satterthwaite); infinite where only images vary.
    """

    value: float
    se: float
    df: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the two-sided t interval of a difference, within [-1, 1]."""
        half = self._quantile((1 + level) / 2) * self.se
        return max(self.value - half, -1.0), min(self.value + half, 1.0)

    def lower_bound(self, level: float = LEVEL) -> float:
        """Return the one-sided lower confidence bound of a difference."""
        return self.value - self._quantile(level) * self.se

    @property
    def p_value(self) -> float:
        """The two-sided p-value of a t test that the difference is 0."""
        return math.nan if math.isnan(self.se) else float(2 * t.sf(abs(self.value) / self.se, self.df))

    def _quantile(self, share: float) -> float:
        return math.nan if math.isnan(self.se) else float(t.ppf(share, self.df))


def compare_crossed(first: Floats, second: Floats) -> Estimate:
    """Return the difference of two arms' mean accuracies, paired by image.

    The variance between runs and the variance between images both contain the residual (a run on an image), so one of
    the two is subtracted; adding them, as the two-way bootstrap does, counts it twice (Gallas, Bandos, Samuelson and
    Wagner, Communications in Statistics 38, 2009). The variance is never below that of runs or of images alone. Degrees
    of freedom after Hillis, Statistics in Medicine 26, 2007.

    Args:
        first, second: (runs, images) 1 or 0, on the same images, complete; at least 2 runs each.
    """
    images = first.shape[1]
    difference = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2 or images < 2:
        return Estimate(difference, math.nan, math.nan)
    parts = [(_run_variance(arm) / len(arm), len(arm) - 1) for arm in (first, second)]
    by_image = float((first.mean(axis=0) - second.mean(axis=0)).var(ddof=1)) / images
    residual = sum(_residual_variance(arm) / arm.size for arm in (first, second))
    # One image on which the arms disagree is always possible, also where these runs agree on all.
    return _estimate(difference, parts, by_image, residual, floor=1 / (images + 2) ** 2)


def estimate_mean(arm: Floats) -> Estimate:
    """Return the mean accuracy of an arm; its standard error as in `compare_crossed`.

    Args:
        arm: (runs, images) 1 or 0, complete; at least 2 runs.
    """
    images = arm.shape[1]
    parts = [(_run_variance(arm) / len(arm), len(arm) - 1)]
    by_image = float(arm.mean(axis=0).var(ddof=1)) / images
    return _estimate(float(arm.mean()), parts, by_image, _residual_variance(arm) / arm.size, floor=0.0)


def compare_unpaired(first: Sequence[float], second: Sequence[float], images: float) -> Estimate:
    """Return the difference of two arms of which only the runs' accuracies are known: wider, as nothing is paired.

    Args:
        first, second: accuracies of the runs.
        images: that each run was tested on.
    """
    difference = float(np.mean(first) - np.mean(second))
    if min(len(first), len(second)) < 2 or not images > 1:
        return Estimate(difference, math.nan, math.nan)
    parts = [(float(np.var(values, ddof=1)) / len(values), len(values) - 1) for values in (first, second)]
    means = [float(np.mean(values)) for values in (first, second)]
    by_image = sum(mean * (1 - mean) / images for mean in means)
    return _estimate(difference, parts, by_image, residual=0.0, floor=1 / (images + 2) ** 2)


def compare_folds(differences: Sequence[float]) -> Estimate:
    """Return the mean of differences by fold, with the corrected t test of Nadeau and Bengio.

    Training sets of folds overlap, so the variance of a mean of J folds is not 1/J but 1/J + 1/(J - 1) of the variance
    between folds: test over training images is 1/(J - 1) (Machine Learning 52, 2003, section 3).
    """
    folds = len(differences)
    value = float(np.mean(differences))
    if folds < 2:
        return Estimate(value, math.nan, math.nan)
    variance = float(np.var(differences, ddof=1)) * (1 / folds + 1 / (folds - 1))
    return Estimate(value, max(math.sqrt(variance), 1e-9), folds - 1)


def wilson_interval(estimate: Estimate, images: int) -> tuple[float, float]:
    """Return an interval of a mean accuracy inside [0, 1]: Wilson's, for the number of images that its error is worth.

    Effective sample size as in Korn and Graubard, Survey Methodology 24, 1998, section 3.
    """
    p = estimate.value
    size = float(images) if not estimate.se or p in (0.0, 1.0) else min(p * (1 - p) / estimate.se**2, float(images))
    z = float(t.ppf((1 + LEVEL) / 2, estimate.df))
    centre, half = p + z**2 / (2 * size), z * math.sqrt(p * (1 - p) / size + z**2 / (4 * size**2))
    scale = 1 + z**2 / size
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def variance_components(first: Floats, second: Floats) -> Components:
    """Return the variance components of the difference of two arms; see `compare_crossed` for the arguments."""
    images = first.shape[1]
    arms = [(arm, _residual_variance(arm)) for arm in (first, second)]
    runs = sum(max(_run_variance(arm) - residual / images, 0.0) for arm, residual in arms)
    of_images = float((first.mean(axis=0) - second.mean(axis=0)).var(ddof=1))
    of_residual = sum(residual / len(arm) for arm, residual in arms)
    return Components(runs / 2, max(of_images - of_residual, 0.0), sum(residual for _, residual in arms) / 2)


def _estimate(
    value: float, parts: Sequence[tuple[float, int]], by_image: float, residual: float, floor: float
) -> Estimate:
    """Return an estimate from the variance parts of its arms' runs (with their df) and of images."""
    between_runs = sum(part for part, _ in parts)
    variance = max(between_runs + by_image - residual, between_runs, by_image, floor)
    if not between_runs:
        return Estimate(value, math.sqrt(variance), math.inf)
    welch = sum(part**2 / df for part, df in parts)
    # With 2 runs against 5, Welch-Satterthwaite alone errs in 7% of equal arms (2 against 10: 11%), as the variance of
    # 2 runs is often far too small by chance. So df is no larger than if both arms' runs varied equally.
    equal = sum(1 / (df + 1) for _, df in parts)
    shares = sum((between_runs / (df + 1) / equal) ** 2 / df for _, df in parts)
    return Estimate(value, math.sqrt(variance), variance**2 / max(welch, shares))


def _run_variance(arm: Floats) -> float:
    return float(arm.mean(axis=1).var(ddof=1))


def _residual_variance(arm: Floats) -> float:
    """Return the mean square of the residuals of runs x images."""
    runs, images = arm.shape
    residuals = arm - arm.mean(axis=1, keepdims=True) - arm.mean(axis=0, keepdims=True) + arm.mean()
    return float((residuals**2).sum() / ((runs - 1) * (images - 1)))
