"""Pairwise comparisons of strategies, paired by test image: differences, intervals and p-values."""

from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.crossed import CorrectnessMatrix, Floats, bootstrap, p_value, standard_error, t_interval
from analysis.stats.tests import holm, mcnemar, probability_of_improvement
from analysis.tables.selection import best_by_val

# The columns of pairs.csv and of report.json's pairs. Accuracies and differences are fractions.
PAIRS = {
    "strategy": "the first strategy",
    "other": "the second strategy",
    "difference": "mean test accuracy of the first minus that of the second",
    "difference_low": "lower end of its 95% interval, from a bootstrap of images and seeds, paired by image",
    "difference_high": "upper end of that interval",
    "p": "two-sided p-value of a t test with the bootstrap's standard error; empty below 3 runs each",
    "p_holm": "the same after Holm's correction for the number of pairs",
    "probability_of_improvement": "probability that a run of the first beats one of the second; empty below 3 runs",
    "only_one": "test images that only the first's best run (by val) classified correctly",
    "only_other": "test images that only the second's best run classified correctly",
    "mcnemar_p": "exact p-value of McNemar's test of these two networks",
    "mcnemar_p_holm": "the same after Holm's correction",
}
RUNS_NEEDED = 3  # of each strategy: with fewer, the variance between seeds or folds is not known well enough for a test


def intervals_and_pairs(
    matrix: CorrectnessMatrix, runs: pd.DataFrame, order: list[str], rng: np.random.Generator
) -> tuple[dict[str, tuple[float, float]], pd.DataFrame]:
    """Return strategy -> interval of its mean test accuracy, and the pairs; strategies without predictions left out.

    Args:
        runs: of the chosen recipes.
        order: of the strategies.
    """
    by_strategy = {name: runs[runs["strategy"] == name] for name in order}
    known = set(matrix.runs)
    by_strategy = {name: rows for name, rows in by_strategy.items() if set(rows["run"]) <= known}
    if not by_strategy:
        return {}, pd.DataFrame(columns=list(PAIRS))
    means = bootstrap(matrix, [matrix.indices_of(rows["run"].tolist()) for rows in by_strategy.values()], rng)
    samples = dict(zip(by_strategy, means.T, strict=True))
    intervals = {}
    for name, rows in by_strategy.items():
        accuracies = sorted(rows["test/accuracy"])
        intervals[name] = t_interval(fmean(accuracies), standard_error(samples[name], accuracies))
    pairs = [
        {
            "strategy": first,
            "other": second,
            **_compare_pair(by_strategy[first], by_strategy[second], samples[first] - samples[second]),
            **_compare_networks(matrix, best_by_val(by_strategy[first]), best_by_val(by_strategy[second])),
        }
        for first, second in combinations(by_strategy, 2)
    ]
    table = pd.DataFrame(pairs, columns=[name for name in PAIRS if not name.endswith("_holm")])
    for name in ("p", "mcnemar_p"):
        table[f"{name}_holm"] = holm(table[name].tolist())
    return intervals, table[list(PAIRS)]


def _compare_pair(first: pd.DataFrame, second: pd.DataFrame, samples: Floats) -> dict[str, float]:
    """Return the difference of two strategies' mean test accuracies, its interval and its test.

    Args:
        first, second: their runs.
        samples: (draws,) of the difference.
    """
    accuracies = sorted(first["test/accuracy"]), sorted(second["test/accuracy"])
    difference = fmean(accuracies[0]) - fmean(accuracies[1])
    error = standard_error(samples, *accuracies)
    low, high = t_interval(difference, error, minimum=-1.0)
    is_tested = min(map(len, accuracies)) >= RUNS_NEEDED
    return {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "p": p_value(difference, error) if is_tested else np.nan,
        "probability_of_improvement": probability_of_improvement(*accuracies) if is_tested else np.nan,
    }


def _compare_networks(matrix: CorrectnessMatrix, first: "pd.Series[Any]", second: "pd.Series[Any]") -> dict[str, float]:
    """Return McNemar's test of two runs; NaN where they share no test image."""
    ours, theirs = (matrix.correct[matrix.indices_of([str(run["run"])])[0]] for run in (first, second))
    if not (~np.isnan(ours) & ~np.isnan(theirs)).any():
        return {"only_one": np.nan, "only_other": np.nan, "mcnemar_p": np.nan}
    only_first, only_second = int((ours > theirs).sum()), int((theirs > ours).sum())  # False where one is NaN
    return {"only_one": only_first, "only_other": only_second, "mcnemar_p": mcnemar(only_first, only_second)}
