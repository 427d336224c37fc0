"""Pairwise comparisons of arms, paired by test image: differences, intervals and p-values."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.crossed import (
    CorrectnessMatrix,
    Estimate,
    Floats,
    compare_crossed,
    compare_folds,
    compare_unpaired,
    estimate_mean,
    variance_components,
    wilson_interval,
)
from analysis.stats.tests import holm, mcnemar, probability_of_improvement
from analysis.tables.selection import best_by_val
from finetune.sweep.power import Components

# The columns of pairs.csv and of report.json's pairs. Accuracies and differences are fractions.
PAIRS = {
    "strategy": "the first arm",
    "other": "the second arm",
    "difference": "mean test accuracy of the first minus that of the second",
    "difference_low": "lower end of its 95% interval for new images and new training runs; empty for a single run",
    "difference_high": "upper end of that interval",
    "se": "standard error of the difference; empty for a single run",
    "df": "degrees of freedom of the interval and the test (Welch-Satterthwaite); empty if unlimited",
    "p": "two-sided p-value of a t test that the difference is 0",
    "p_holm": "the same after Holm's correction, for the comparisons with the candidate; empty for other pairs",
    "probability_of_improvement": "share of pairs of runs in which the first is more accurate; empty for single runs",
    "only_one": "test images that only the first's best run (by val) classified correctly",
    "only_other": "test images that only the second's best run classified correctly",
    "mcnemar_p": "mid-p value of McNemar's test of these two networks",
}


@dataclass(frozen=True)
class TestResults:
    """The test results of the arms.

    Attributes:
        runs: arm -> the finished runs that its test accuracy is the mean of.
        matrix: of all runs with predictions.
        images: arm -> number of distinct test images; NaN if unknown.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    runs: Mapping[str, pd.DataFrame]
    matrix: CorrectnessMatrix
    images: Mapping[str, float]

    def rows(self, arm: str) -> Floats:
        """Return an arm's rows of the correctness matrix; without rows if a run has no predictions."""
        names = self.runs[arm]["run"].tolist()
        return self.matrix.rows_of(names if set(names) <= set(self.matrix.runs) else [])

    def interval(self, arm: str) -> tuple[float, float, str]:
        """Return the 95% interval of an arm's mean accuracy and its kind: "crossed", "folds", "Wilson", or ""."""
        runs, images = self.runs[arm], self.images[arm]
        accuracies = sorted(runs["test/accuracy"])
        if not images > 0:
            return np.nan, np.nan, ""
        rows = self.rows(arm)
        if len(accuracies) > 1 and (by_fold := _by_fold(runs)) is not None and len(by_fold) > 1:
            spread = compare_folds(list(by_fold))
            return *wilson_interval(spread, round(images)), "folds"
        if len(rows) > 1 and not np.isnan(rows).any():
            return *wilson_interval(estimate_mean(rows), rows.shape[1]), "crossed"
        mean = float(np.mean(accuracies))
        variance = mean * (1 - mean) / images + (np.var(accuracies, ddof=1) / len(accuracies) if len(rows) > 1 else 0.0)
        return *wilson_interval(Estimate(mean, float(np.sqrt(variance)), np.inf), round(images)), "Wilson"

    def compare(self, first: str, second: str) -> Estimate:
        """Return the difference of two arms: by fold, paired by image, or unpaired where predictions are missing."""
        folds = [_by_fold(self.runs[arm]) for arm in (first, second)]
        if folds[0] is not None and folds[1] is not None:
            return compare_folds((folds[0] - folds[1]).dropna().tolist() or [np.nan])
        rows = self._shared_rows(first, second)
        if rows is not None:
            return compare_crossed(*rows)
        accuracies = {arm: sorted(self.runs[arm]["test/accuracy"]) for arm in (first, second)}
        images = min(self.images[first], self.images[second])
        return compare_unpaired(accuracies[first], accuracies[second], images)

    def components(self, first: str, second: str) -> Components | None:
        """Return the variance components of a difference; None without two runs each on the same images."""
        rows = self._shared_rows(first, second)
        return None if rows is None or min(map(len, rows)) < 2 else variance_components(*rows)

    def _shared_rows(self, first: str, second: str) -> tuple[Floats, Floats] | None:
        """Return the rows of two arms on the images that all their runs were tested on; None if there are few."""
        rows = self.rows(first), self.rows(second)
        if not (len(rows[0]) and len(rows[1])):
            return None
        shared = ~np.isnan(np.concatenate(rows)).any(axis=0)
        return (rows[0][:, shared], rows[1][:, shared]) if shared.sum() > 1 else None


def _by_fold(runs: pd.DataFrame) -> "pd.Series[float] | None":
    """Return the accuracy by fold, the mean over its seeds; None for runs that were not cross-validated."""
    if "fold" not in runs or runs["fold"].isna().any():
        return None
    return runs.groupby("fold")["test/accuracy"].mean()


def compare_pairs(results: TestResults, candidate: str) -> pd.DataFrame:
    """Return PAIRS of all pairs of arms."""
    pairs = []
    for first, second in combinations(results.runs, 2):
        estimate = results.compare(first, second)
        low, high = estimate.interval()
        accuracies = [sorted(results.runs[arm]["test/accuracy"]) for arm in (first, second)]
        pairs.append(
            {
                "strategy": first,
                "other": second,
                "difference": estimate.value,
                "difference_low": low,
                "difference_high": high,
                "se": estimate.se,
                "df": estimate.df if np.isfinite(estimate.df) else np.nan,
                "p": estimate.p_value,
                "probability_of_improvement": (
                    probability_of_improvement(*accuracies) if min(map(len, accuracies)) > 1 else np.nan
                ),
                **_compare_networks(results, first, second),
            }
        )
    table = pd.DataFrame(pairs, columns=[name for name in PAIRS if name != "p_holm"])
    with_candidate = (table["strategy"] == candidate) | (table["other"] == candidate)
    table["p_holm"] = np.nan
    table.loc[with_candidate, "p_holm"] = holm(table.loc[with_candidate, "p"].tolist())
    return table[list(PAIRS)]


def _compare_networks(results: TestResults, first: str, second: str) -> dict[str, Any]:
    """Return McNemar's test of the arms' best runs by val; NaN where they share no test image."""
    rows = [results.matrix.rows_of([str(best_by_val(results.runs[arm])["run"])]) for arm in (first, second)]
    if not all(map(len, rows)) or not (~np.isnan(rows[0]) & ~np.isnan(rows[1])).any():
        return {"only_one": np.nan, "only_other": np.nan, "mcnemar_p": np.nan}
    only_first, only_second = int((rows[0] > rows[1]).sum()), int((rows[1] > rows[0]).sum())  # False where NaN
    return {"only_one": only_first, "only_other": only_second, "mcnemar_p": mcnemar(only_first, only_second)}
