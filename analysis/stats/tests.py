"""Means, spreads, intervals and tests of accuracies. Every accuracy is a fraction in [0, 1]."""

from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from scipy.stats import binomtest, trim_mean  # published without types

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL  # what a p-value has to be below


def mean(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return fmean(values)


def sd(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, or None for one value: one run tells nothing of the next."""
    return stdev(values) if len(values) > 1 else None


def interquartile_mean(values: Sequence[float]) -> float | None:
    """Return the mean of the middle half, or None for fewer than 4 values, of which no quarter can be left out.

    Less moved by one odd run than the mean, and less wasteful than the median (Agarwal et al., "Deep Reinforcement
    Learning at the Edge of the Statistical Precipice", arXiv 2108.13264, section 4.3).
    """
    return float(trim_mean(values, 0.25)) if len(values) >= 4 else None


def probability_of_improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how often a run drawn from `ours` is better than one from `theirs`, ties counting half.

    The Mann-Whitney statistic as a share (Agarwal et al., section 4.3).
    """
    apart = np.subtract.outer(np.asarray(ours), np.asarray(theirs))
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())


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
            three runs on 341 pictures are not 1,023 independent trials. What another seed would change is not in here.
    """
    return wilson(round(mean(accuracies) * pictures), pictures)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact p-value of McNemar's test: do two networks name equally many of the same pictures rightly?

    Args:
        only_first, only_second: pictures that only the one, and only the other, named rightly. Those that both named
            rightly, or both wrongly, say nothing of the difference (McNemar, Psychometrika 1947; the exact form is a
            binomial test).
    """
    apart = only_first + only_second
    return float(binomtest(only_first, apart).pvalue) if apart else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number: compared with 0.05 they err in 5% of sweeps, not of pairs.

    Holm, Scandinavian Journal of Statistics 1979. NaN stays NaN and does not count.
    """
    told = [index for index, p in enumerate(p_values) if p == p]
    corrected, largest = [float("nan")] * len(p_values), 0.0
    for place, index in enumerate(sorted(told, key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(told) - place) * p_values[index]))
        corrected[index] = largest
    return corrected
