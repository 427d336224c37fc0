"""Which difference of test accuracy a sweep can detect, from its numbers of runs and test images.

Used before a sweep, with guessed variances (`--plan`), and after it, with estimated ones (the report).
"""

import math
from dataclasses import dataclass

from scipy.stats import t

CONFIDENCE, POWER = 0.95, 0.8


@dataclass(frozen=True)
class Components:
    """Variance components of the difference of two arms, in squared fractions of accuracy."""

    runs: float  # between the training runs of one arm: the square of the seeds' standard deviation
    images: float  # of the difference, between test images
    residual: float  # of one run on one image, beyond both


# A guess for sweeps that have not run: two runs of one recipe disagree on 10% of the test images (twice the residual),
# runs of two recipes on 14%.
SEED_SD = 0.01
GUESS = Components(runs=SEED_SD**2, images=0.04, residual=0.05)


def detectable_difference(components: Components, runs: float, images: float) -> float:
    """Return the difference of two arms that a two-sided 5% test detects with 80% power, a fraction; NaN below 2 runs.

    Args:
        runs: of each arm.
        images: test images.
    """
    se, df = planned_error(components, runs, images)
    return float(t.ppf((1 + CONFIDENCE) / 2, df) + t.ppf(POWER, df)) * se


def interval_half_width(components: Components, runs: float, images: float) -> float:
    """Return half the width of the 95% interval of a difference with this many runs and images; see above."""
    se, df = planned_error(components, runs, images)
    return float(t.ppf((1 + CONFIDENCE) / 2, df)) * se


def planned_error(components: Components, runs: float, images: float) -> tuple[float, float]:
    """Return the standard error of a difference and its degrees of freedom; NaN if they can't be known."""
    if not (runs >= 2 and images >= 1):
        return math.nan, math.nan
    part = components.runs / runs + components.residual / (runs * images)  # of one arm's mean, over its runs
    variance = 2 * components.runs / runs + components.images / images + 2 * components.residual / (runs * images)
    variance = max(variance, 1 / (images + 2) ** 2)  # as in the comparison: one image may always differ
    df = variance**2 / (2 * part**2 / (runs - 1)) if part else math.inf
    return math.sqrt(variance), df


def detectable_sentence(runs: int, images: int) -> str:
    """Return what a sweep of this size can show, before it is run."""
    points = detectable_difference(GUESS, runs, images) * 100
    if math.isnan(points):
        return "With 1 run per recipe, no difference between recipes can be tested: add seeds, such as seed: [0, 1, 2]."
    more = detectable_difference(GUESS, 2 * runs, images) * 100
    return (
        f"With {runs} runs per recipe and {images:,} test images this sweep can detect differences of about "
        f"{points:.1f} points (80% power, if seeds differ by {SEED_SD * 100:g} point); {2 * runs} runs: {more:.1f}."
    )
