"""Which strategy to use, and which for how much training time."""

from typing import Any

import pandas as pd

from analysis.stats.pareto import pareto_front
from analysis.tables.comparison import Comparison
from analysis.tables.verdict import Verdict, fastest, own_seconds


def recommended_strategy(comparison: Comparison, verdict: Verdict) -> str:
    """Return the best strategy, or the fastest of those that are not distinguishable from it."""
    if verdict.verdict != "not distinguishable":
        return verdict.best
    rows = comparison.strategies.set_index("strategy", drop=False)
    quickest = fastest([rows.loc[name] for name in verdict.level])
    return verdict.best if quickest is None else str(quickest["strategy"])


def strategies_by_budget(comparison: Comparison) -> "list[pd.Series[Any]]":
    """Return the rows of the strategies on the Pareto front of training time and test accuracy, the fastest first."""
    rows = comparison.strategies.set_index("strategy", drop=False)
    points = pd.DataFrame({"cost": rows.apply(own_seconds, axis=1), "score": rows["test_accuracy_mean"]})
    return [rows.loc[name] for name in pareto_front(points.dropna())]
