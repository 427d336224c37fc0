"""Spread, intervals and tests of accuracies. Every accuracy is a fraction in [0, 1]."""

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np
from scipy.stats import binom, binomtest, trim_mean  # published without types

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL  # of every test


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, or None for one value."""
    return stdev(values) if len(values) > 1 else None


def interquartile_mean(values: Sequence[float]) -> float | None:
    """Return the mean of the middle half, or None for fewer than 4 values, of which no quarter can be left out.

    More robust than the mean, and more efficient than the median (Agarwal et al., "Deep Reinforcement Learning at the
    Edge of the Statistical Precipice", arXiv 2108.13264, section 4.3).
    """
    return float(trim_mean(values, 0.25)) if len(values) >= 4 else None


def probability_of_improvement(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the probability that a run drawn from `first` beats one drawn from `second`, ties counting half.

    The Mann-Whitney statistic as a share (Agarwal et al., section 4.3).
    """
    differences = np.subtract.outer(np.asarray(first), np.asarray(second))
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean())


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson interval of a proportion.

    Wilson, JASA 1927; unlike the normal interval it stays inside [0, 1] and keeps its coverage with few trials.
    """
    interval = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    # At the ends, rounding errors would leave out the proportion itself.
    return (float(interval.low) if successes else 0.0, float(interval.high) if successes < trials else 1.0)


def expected_best(values: Sequence[float], tries: int) -> float:
    """Return the expected largest of `tries` values drawn from these without replacement.

    How good a recipe a search finds after so many tries (Dodge et al., EMNLP 2019, section 3; without replacement as in
    Tang et al., ACL 2020).
    """
    ranked, total = sorted(values), math.comb(len(values), tries)
    return sum(value * math.comb(rank, tries - 1) for rank, value in enumerate(ranked)) / total


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the mid-p value of McNemar's test: do two networks classify equally many of the same images correctly?

    The exact test is conservative; its mid-p version is not, and hardly ever exceeds its level (Fagerland, Lydersen and
    Laake, BMC Medical Research Methodology 13:91, 2013).

    Args:
        only_first, only_second: number of images that only this network classified correctly. Images on which both
            agree carry no information on the difference (McNemar, Psychometrika 1947).
    """
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    observed = float(binom.pmf(only_first, discordant, 0.5))
    if only_first == only_second:
        return 1 - observed / 2
    return float(binomtest(only_first, discordant).pvalue) - observed


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, so that ALPHA bounds the family-wise error rate.

    Holm, Scandinavian Journal of Statistics 1979. NaN stays NaN and does not count.
    """
    known = [index for index, p in enumerate(p_values) if p == p]
    corrected, largest = [float("nan")] * len(p_values), 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
