"""Means, spreads and intervals of accuracies. Every accuracy is a fraction in [0, 1]."""

from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.stats import binomtest  # published without types

LEVEL = 0.95  # of every interval


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return fmean(values)


def sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, or None for one value: one run tells nothing of the next."""
    return stdev(values) if len(values) > 1 else None


def wilson(right: int, pictures: int) -> tuple[float, float]:
    """Return the Wilson interval of a proportion: `right` of `pictures`.

    It answers: where would this model's accuracy lie on all pictures of the kind these were drawn from?
    Wilson, JASA 1927; unlike the normal interval it stays inside [0, 1] and holds its level for few pictures.
    """
    interval = binomtest(right, pictures).proportion_ci(LEVEL, method="wilson")
    # At the ends rounding errors would leave out the proportion itself.
    return (float(interval.low) if right else 0.0, float(interval.high) if right < pictures else 1.0)


def wilson_over_seeds(accuracies: Sequence[float], pictures: int) -> tuple[float, float]:
    """Return the Wilson interval of the mean accuracy of runs that differ in seed or fold.

    Args:
        accuracies: (runs,) one for each run.
        pictures: that they were tested on; over folds, those of all. Each counts once, however many runs named it:
            three runs on 341 pictures are not 1,023 independent trials. What another seed would change is not in here;
            `sd` says that.
    """
    return wilson(round(mean(accuracies) * pictures), pictures)
