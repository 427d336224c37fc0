"""Which strategy did best on test, which others are not distinguishable from it, and which one to use."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.stats.pareto import pareto_front
from analysis.stats.tests import ALPHA
from analysis.tables.comparison import Comparison
from analysis.tables.pairwise import RUNS_NEEDED


@dataclass(frozen=True)
class Verdict:
    """What the comparison decides.

    Attributes:
        verdict: "distinguishable", "not distinguishable", "too few seeds" or "nothing to compare".
        best: the strategy with the highest mean test accuracy among the chosen recipes.
        second: the next one, or None.
        lead: mean test accuracy of best minus that of second, a fraction; None without a second.
        level: best, and the strategies that are not distinguishable from it, by test accuracy; only those with enough
            runs. Empty without a verdict.
    """

    verdict: str
    best: str
    second: str | None
    lead: float | None
    level: tuple[str, ...]


def decide(comparison: Comparison) -> Verdict:
    """Return the verdict that this number of runs and test images allows."""
    rows = rank_strategies(comparison)
    best = rows[0]
    name = str(best["strategy"])
    if len(rows) == 1:
        return Verdict("nothing to compare", name, None, None, ())
    second = rows[1]
    runner_up, lead = str(second["strategy"]), float(best["test_accuracy_mean"] - second["test_accuracy_mean"])
    if min(best["n"], second["n"]) < RUNS_NEEDED:
        return Verdict("too few seeds", name, runner_up, lead, ())
    level = tuple(
        str(row["strategy"])
        for row in rows
        if row is best or (row["n"] >= RUNS_NEEDED and not distinguishable(best, row, comparison.pairs))
    )
    verdict = "distinguishable" if len(level) == 1 else "not distinguishable"
    return Verdict(verdict, name, runner_up, lead, level)


def rank_strategies(comparison: Comparison) -> "list[pd.Series[Any]]":
    """Return the rows of the strategies by mean test accuracy, the best first; ties go to the shorter training."""
    ranked = comparison.strategies.sort_values(
        ["test_accuracy_mean", "train_seconds_mean"], ascending=[False, True], kind="stable"
    )
    return [row for _, row in ranked.iterrows()]


def distinguishable(first: "pd.Series[Any]", second: "pd.Series[Any]", pairs: pd.DataFrame) -> bool:
    """Whether two strategies differ significantly, over images and seeds.

    By the paired bootstrap with Holm's correction. Without predictions: where neither their intervals nor their runs'
    accuracies overlap, which is conservative. Never with fewer than RUNS_NEEDED runs.
    """
    if min(first["n"], second["n"]) < RUNS_NEEDED:
        return False
    pair = find_pair(first, second, pairs)
    if pair is not None:
        return bool(pair["p_holm"] < ALPHA)
    return intervals_disjoint(first, second) and _ranges_disjoint(first, second, "min", "max")


def find_pair(first: "pd.Series[Any]", second: "pd.Series[Any]", pairs: pd.DataFrame) -> "pd.Series[Any] | None":
    """Return the row of `pairs` with these two strategies, in either order, or None."""
    names = {first["strategy"], second["strategy"]}
    found = pairs[pairs["strategy"].isin(names) & pairs["other"].isin(names)]
    return found.iloc[0] if len(found) else None


def intervals_disjoint(first: "pd.Series[Any]", second: "pd.Series[Any]") -> bool:
    """Whether the 95% intervals of two strategies do not overlap; False where one of them is unknown."""
    return _ranges_disjoint(first, second, "low", "high")


def _ranges_disjoint(first: "pd.Series[Any]", second: "pd.Series[Any]", low: str, high: str) -> bool:
    low, high = f"test_accuracy_{low}", f"test_accuracy_{high}"
    return bool(first[low] > second[high] or second[low] > first[high])  # False with NaN


def fastest(rows: "list[pd.Series[Any]]") -> "pd.Series[Any] | None":
    """Return the strategy that trains fastest, the first among equals; None where no training time is known."""
    known = [row for row in rows if pd.notna(own_seconds(row))]
    return min(known, key=own_seconds, default=None)


def own_seconds(row: "pd.Series[Any]") -> float:
    """Return the training seconds of a run of this strategy, without filling caches, which other runs share."""
    return float(row["train_seconds_mean"] - row["cache_seconds_mean"])


def recommended_strategy(comparison: Comparison, verdict: Verdict) -> str:
    """Return the best strategy, or the fastest of those that are not distinguishable from it."""
    if verdict.verdict != "not distinguishable":
        return verdict.best
    rows = comparison.strategies.set_index("strategy", drop=False)
    quickest = fastest([row for name, row in rows.iterrows() if name in verdict.level])
    return verdict.best if quickest is None else str(quickest["strategy"])


def strategies_by_budget(comparison: Comparison) -> "list[pd.Series[Any]]":
    """Return the rows of the strategies on the Pareto front of training time and test accuracy, the fastest first."""
    rows = comparison.strategies.set_index("strategy", drop=False)
    points = pd.DataFrame({"cost": rows.apply(own_seconds, axis=1), "score": rows["test_accuracy_mean"]})
    by_name = dict(rows.iterrows())
    return [by_name[name] for name in pareto_front(points.dropna())]
