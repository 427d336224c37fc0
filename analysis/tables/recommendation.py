"""The recommendation in a few facts: what to use, what it reaches, what it costs, how sure that is, and by budget."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.formatting import format_interval, format_p, format_points, percent, train_time_text
from analysis.stats.pareto import pareto_front
from analysis.tables.comparison import Comparison
from analysis.tables.verdict import Verdict, distinguishable, fastest, own_seconds, pair_of


@dataclass(frozen=True)
class BudgetOption:
    """A strategy that is worth its time: nothing as quick does better.

    Attributes:
        seconds: training time of a run, filling caches left out.
        gain: what the time buys against the step before, in words; "" for the first.
    """

    strategy: str
    recipe: str
    seconds: float
    budget: str
    accuracy: str
    interval: str
    gain: str


def recommend(comparison: Comparison, result: Verdict, data: dict[str, Any]) -> dict[str, str]:
    """Return the facts of the recommendation by their headings, in order."""
    rows = {str(row["strategy"]): row for _, row in comparison.strategies.iterrows()}
    use = recommended(comparison, result)
    row = rows[use]
    facts = {
        "Use"
        if result.verdict in ("distinguishable", "not distinguishable")
        else "Ahead so far": f"{use}, {row['recipe']}",
        "It reaches": f"{percent(row['test_accuracy_mean'])} of test pictures right"
        + (
            f" ({format_interval(row['test_accuracy_low'], row['test_accuracy_high'])})"
            if pd.notna(row["test_accuracy_low"])
            else ""
        ),
        "It costs": f"{train_time_text(row)} a run"
        + (
            f", {percent(row['time_saved'], 0)} less than full"
            if pd.notna(row["time_saved"]) and row["time_saved"] > 0.005
            else ""
        )
        + (f"; {row['peak_memory_mb'] / 1000:.1f} GB of memory" if pd.notna(row["peak_memory_mb"]) else ""),
        "How sure": confidence_text(result, use),
    }
    size = data["splits"]["train"]
    if size:
        classes = len(data["classes"])
        facts["For data like"] = f"{size:,} training pictures" + (f" of {classes} classes" if classes else "")
    return facts


def recommended(comparison: Comparison, result: Verdict) -> str:
    """Return the strategy to use: the best one, or the quickest of those that can't be told from it."""
    rows = comparison.strategies
    if result.verdict != "not distinguishable":
        return result.best
    quick = fastest([row for name in result.level for _, row in rows[rows["strategy"] == name].iterrows()])
    return result.best if quick is None else str(quick["strategy"])


def confidence_text(result: Verdict, use: str) -> str:
    """Return how sure the recommendation is, in a few words."""
    if result.verdict == "distinguishable":
        return f"better than {result.second}, on other pictures and other seeds too"
    if result.verdict == "not distinguishable":
        others = [name for name in result.level if name != use]
        return (
            f"not distinguishable from {', '.join(others)}; the quickest of them" if others else "not distinguishable"
        )
    return {"too few seeds": "not at all: too few seeds"}.get(result.verdict, "nothing to compare with")


def by_budget(comparison: Comparison) -> list[BudgetOption]:
    """Return what to use for how much time: the strategies on the Pareto front, the quickest first."""
    table = comparison.strategies.set_index("strategy", drop=False)
    rows = {str(row["strategy"]): row for _, row in table.iterrows()}
    cost = table.apply(own_seconds, axis=1)
    front = pareto_front(pd.DataFrame({"cost": cost, "score": table["test_accuracy_mean"]}).dropna())
    steps: list[BudgetOption] = []
    for name in front:
        row = rows[name]
        before = rows[steps[-1].strategy] if steps else None
        steps.append(
            BudgetOption(
                name,
                str(row["recipe"]),
                float(cost[name]),
                train_time_text(row),
                percent(row["test_accuracy_mean"]),
                format_interval(row["test_accuracy_low"], row["test_accuracy_high"]),
                "" if before is None else _marginal_gain_text(row, before, comparison.pairs),
            )
        )
    return steps


def _marginal_gain_text(row: "pd.Series[Any]", before: "pd.Series[Any]", pairs: pd.DataFrame) -> str:
    """Say what the longer time buys."""
    gained = (row["test_accuracy_mean"] - before["test_accuracy_mean"]) * 100
    pair = pair_of(row, before, pairs)
    told = f"{gained:.1f} points above {before['strategy']}"
    if pair is not None:
        sign = 1 if pair["strategy"] == row["strategy"] else -1
        ends = sorted(sign * pair[f"difference_{end}"] for end in ("low", "high"))
        tested = "too few seeds for a test" if pd.isna(pair["p_holm"]) else f"p {format_p(pair['p_holm'])}"
        told += f" ({format_points(*ends)}, {tested})"
    return told if distinguishable(row, before, pairs) else f"{told}: not distinguishable"
