"""Strategies two by two, on the same test pictures: how large a difference is, and whether it can be told from none."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.crossed import CorrectnessMatrix, bootstrap, p_value, standard_error, t_interval
from analysis.stats.tests import holm, mcnemar, mean, probability_of_improvement

# The columns of pairs.csv and of report.json's pairs. Accuracies and differences are fractions.
PAIRS = {
    "strategy": "the one strategy",
    "other": "the other",
    "difference": "mean test accuracy of the one minus that of the other",
    "difference_low": "lower end of its 95% interval: pictures and seeds drawn anew, the same pictures for both",
    "difference_high": "upper end of that interval",
    "p": "two-sided p-value of a t test with that bootstrap's spread; empty below 3 runs each",
    "p_holm": "the same after Holm's correction for the number of pairs",
    "probability_of_improvement": "how often a run of the one beats a run of the other; empty below 3 runs each",
    "only_one": "test pictures that only the one's best run (by val) named rightly",
    "only_other": "test pictures that only the other's best run named rightly",
    "mcnemar_p": "exact p-value of McNemar's test of these two networks",
    "mcnemar_p_holm": "the same after Holm's correction",
}
RUNS_NEEDED = 3  # of each strategy, seeds or folds, for what these change to be known at all


def compare_pairs(outcomes: CorrectnessMatrix, runs: pd.DataFrame, order: list[str], means: Any) -> pd.DataFrame:
    """Return one row a pair of strategies, PAIRS, in the order of `order`.

    Args:
        outcomes: of the chosen recipes' runs.
        runs: these runs: run, strategy, test/accuracy, best/val_accuracy, best/val_loss.
        means: (draws, len(order)) of the bootstrap, a column a strategy.
    """
    rows = []
    by_strategy = {name: runs[runs["strategy"] == name] for name in order}
    for (first, ours), (second, theirs) in combinations(enumerate(order), 2):
        one, other = by_strategy[ours], by_strategy[theirs]
        accuracies = sorted(one["test/accuracy"]), sorted(other["test/accuracy"])
        difference = mean(accuracies[0]) - mean(accuracies[1])
        drawn = means[:, first] - means[:, second]
        around = standard_error(drawn, *accuracies)
        low, high = t_interval(difference, around, least=-1.0)
        only_one, only_other = _discordant(outcomes, _best(one), _best(other))
        enough = min(map(len, accuracies)) >= RUNS_NEEDED
        rows.append(
            {
                "strategy": ours,
                "other": theirs,
                "difference": difference,
                "difference_low": low,
                "difference_high": high,
                "p": p_value(difference, around) if enough else np.nan,
                "probability_of_improvement": probability_of_improvement(*accuracies) if enough else np.nan,
                "only_one": only_one,
                "only_other": only_other,
                "mcnemar_p": np.nan if np.isnan(only_one) else mcnemar(int(only_one), int(only_other)),
            }
        )
    table = pd.DataFrame(rows, columns=[name for name in PAIRS if not name.endswith("_holm")])
    table["p_holm"] = holm(table["p"].tolist())
    table["mcnemar_p_holm"] = holm(table["mcnemar_p"].tolist())
    return table[list(PAIRS)]


def intervals_and_pairs(
    outcomes: CorrectnessMatrix, runs: pd.DataFrame, order: list[str], rng: np.random.Generator
) -> tuple[dict[str, tuple[float, float]], pd.DataFrame]:
    """Return strategy -> interval of its mean test accuracy, and the pairs; of strategies whose predictions are there.

    Args:
        runs: of the chosen recipes.
        order: of the strategies.
    """
    known = set(outcomes.runs)
    whole = [name for name in order if set(runs["run"][runs["strategy"] == name]) <= known]
    groups = [outcomes.rows(runs["run"][runs["strategy"] == name].tolist()) for name in whole]
    if not whole:
        return {}, pd.DataFrame(columns=list(PAIRS))
    means = bootstrap(outcomes, groups, rng)
    accuracies = [sorted(runs["test/accuracy"][runs["strategy"] == name]) for name in whole]
    intervals = {
        name: t_interval(mean(values), standard_error(means[:, index], values))
        for index, (name, values) in enumerate(zip(whole, accuracies, strict=True))
    }
    return intervals, compare_pairs(outcomes, runs, whole, means)


def _best(runs: pd.DataFrame) -> str:
    ordered = runs.sort_values(["best/val_accuracy", "best/val_loss", "run"], ascending=[False, True, True])
    return str(ordered["run"].iloc[0])


def _discordant(outcomes: CorrectnessMatrix, one: str, other: str) -> tuple[float, float]:
    """Return how many pictures only the one run, and only the other, named rightly; NaN where they share none."""
    first, second = (outcomes.right[outcomes.rows([name])[0]] for name in (one, other))
    shared = ~np.isnan(first) & ~np.isnan(second)
    if not shared.any():
        return np.nan, np.nan
    return float((first[shared] > second[shared]).sum()), float((second[shared] > first[shared]).sum())
