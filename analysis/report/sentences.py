"""The verdict, the recommendation and the results by training-set size, in words."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.formatting import accuracy_interval, format_p, format_points, percent, train_time_text
from analysis.stats.tests import ALPHA
from analysis.tables.comparison import Comparison
from analysis.tables.data_size import DataSizeResult
from analysis.tables.pairwise import RUNS_NEEDED
from analysis.tables.replicates import join_replicate_labels, replicate_kind
from analysis.tables.verdict import (
    Verdict,
    distinguishable,
    fastest,
    find_pair,
    intervals_disjoint,
    own_seconds,
    rank_strategies,
    recommended_strategy,
    strategies_by_budget,
)

Row = pd.Series  # a strategy's row of the comparison


@dataclass(frozen=True)
class VerdictText:
    """The verdict in one sentence, and the sentences that explain it."""

    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class BudgetOption:
    """A strategy on the Pareto front of training time and test accuracy.

    Attributes:
        seconds: training time of a run, filling caches left out.
        gain: the gain over the option before; "" for the first.
    """

    strategy: str
    recipe: str
    seconds: float
    budget: str
    accuracy: str
    interval: str
    gain: str


def describe_verdict(comparison: Comparison, verdict: Verdict) -> VerdictText:
    """Return the verdict's headline and sentences."""
    rows = rank_strategies(comparison)
    best, score = rows[0], percent(rows[0]["test_accuracy_mean"])
    if verdict.lead is None:
        headline = (
            f"{verdict.best} reached {score} on test with {_replicates(best)}; there is no strategy to compare with."
        )
        return VerdictText(headline, (f"The recipe: {_describe_recipe(best)}",))
    second = rows[1]
    ahead = f"{score} on test, {verdict.lead * 100:.1f} points above {verdict.second}"
    if verdict.verdict == "too few seeds":
        return _describe_too_few(best, second, ahead)
    untested = _untested_note([row for row in rows if row["n"] < RUNS_NEEDED])
    if verdict.verdict == "distinguishable":
        headline = f"Use {verdict.best}: {ahead}, with {_replicates(best, second)} each."
        kind = _replicate(best, second)
        evidence = _describe_difference(best, second, comparison.pairs) or (
            f"Their 95% intervals do not overlap, and every {kind} of {verdict.best} was more accurate than every "
            f"{kind} of {verdict.second}."
        )
        return VerdictText(headline, (f"The recipe: {_describe_recipe(best)}", evidence, *untested))
    level = [row for row in rows if row["strategy"] in verdict.level]
    headline = (
        f"{join_names(verdict.level)} are not distinguishable with {_replicates(*level)}: "
        f"{verdict.best} is ahead with {ahead}."
    )
    evidence = _describe_difference(best, level[1], comparison.pairs) or _describe_overlap(best, level[1])
    return VerdictText(headline, (f"Ahead: {_describe_recipe(best)}", evidence, *_fastest_note(level), *untested))


def _describe_too_few(best: Row, second: Row, ahead: str) -> VerdictText:
    kind = _replicate(best, second)
    headline = (
        f"No verdict yet: {best['strategy']} is ahead with {ahead}, but {_replicates(best, second)} are too few for a "
        "test."
    )
    advice = (
        f"At least {RUNS_NEEDED} {kind}s per recipe are needed. Add values to {'fold' if kind == 'fold' else 'seed'} "
        "in the sweep file and run it again: only the missing runs are run."
    )
    return VerdictText(headline, (f"Ahead so far: {_describe_recipe(best)}", advice))


def _untested_note(rows: list[Row]) -> tuple[str, ...]:
    """Return a sentence on the strategies behind the first two that have too few runs for a test."""
    if not rows:
        return ()
    names = join_names([str(row["strategy"]) for row in rows])
    return (f"Not tested: {names}, with {_replicates(*rows)}; {RUNS_NEEDED} are needed.",)


def _describe_difference(best: Row, second: Row, pairs: pd.DataFrame) -> str | None:
    """Return the interval of the paired difference and the result of its test, or None without predictions."""
    pair = find_pair(best, second, pairs)
    if pair is None:
        return None
    difference = (
        f"On the same test images, {best['strategy']} minus {second['strategy']} is {_difference_interval(best, pair)}"
    )
    if pd.isna(pair["p_holm"]):
        return f"{difference} (95% interval; with {_replicates(best, second)} only a rough estimate)."
    result = (
        "a significant difference"
        if pair["p_holm"] < ALPHA
        else "not significant; the data are compatible with any difference in this interval"
    )
    return (
        f"{difference} (95% interval over images and {_replicate(best, second)}s; "
        f"p {format_p(pair['p_holm'])} after Holm's correction): {result}."
    )


def _difference_interval(minuend: Row, pair: Row) -> str:
    """Return the interval of `minuend` minus the pair's other strategy."""
    sign = 1 if pair["strategy"] == minuend["strategy"] else -1
    return format_points(*sorted(sign * pair[f"difference_{end}"] for end in ("low", "high")))


def _describe_overlap(best: Row, second: Row) -> str:
    """Return why two strategies without paired predictions are not distinguishable."""
    intervals = [accuracy_interval(best), accuracy_interval(second)]
    if pd.isna(best["test_accuracy_low"]):
        return "The size of the test set is unknown, so there are no intervals to compare."
    if intervals_disjoint(best, second):
        return (
            f"Their {_replicate(best, second)}s overlap, although their 95% intervals "
            f"({intervals[0]} and {intervals[1]}) do not."
        )
    return f"The 95% intervals of the first two overlap: {intervals[0]} and {intervals[1]}. That does not mean equal."


def _fastest_note(level: list[Row]) -> tuple[str, ...]:
    """Return a sentence on the fastest of the strategies that are not distinguishable."""
    quickest, best = fastest(level), level[0]
    if quickest is None:
        return ()
    if quickest is best:
        return (f"{best['strategy']} also trained fastest of them.",)
    times = f"{train_time_text(quickest)} per run against {train_time_text(best)}"
    score = percent(quickest["test_accuracy_mean"])
    return (f"Of these, {quickest['strategy']} trained fastest: {times}, with {score} on test.",)


def _describe_recipe(row: Row) -> str:
    tried = f", selected among {row['recipes']} recipes by val accuracy" if row["recipes"] > 1 else ""
    return f"{row['strategy']}, {row['recipe']}{tried}. Training took {train_time_text(row)} per run."


def _replicates(*rows: Row) -> str:
    """Return "3 seeds", or "2 and 3 seeds" where the numbers differ; likewise for folds."""
    return join_replicate_labels(str(row["over"]) for row in rows)


def _replicate(*rows: Row) -> str:
    return replicate_kind(str(row["over"]) for row in rows)


def join_names(names: "tuple[str, ...] | list[str]") -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def recommendation_facts(comparison: Comparison, verdict: Verdict, data: dict[str, Any]) -> dict[str, str]:
    """Return the facts of the recommendation by their headings, in order.

    Args:
        data: see `data_facts`.
    """
    name = recommended_strategy(comparison, verdict)
    row = _row_of(comparison, name)
    accuracy, interval = percent(row["test_accuracy_mean"]), accuracy_interval(row)
    facts = {
        "Use" if verdict.level else "Ahead so far": f"{name}, {row['recipe']}",
        "It reaches": f"{accuracy} of test images correct"
        + (f" ({interval})" if pd.notna(row["test_accuracy_low"]) else ""),
        "It costs": _describe_cost(row),
        "How sure": confidence_text(verdict, name),
    }
    size, classes = data["splits"]["train"], len(data["classes"])
    if size:
        facts["For data like"] = f"{size:,} training images" + (f" of {classes} classes" if classes else "")
    return facts


def _row_of(comparison: Comparison, strategy: str) -> Row:
    return comparison.strategies[comparison.strategies["strategy"] == strategy].iloc[0]


def _describe_cost(row: Row) -> str:
    """Return training time, time saved against full, and memory, as far as they are known."""
    saved, memory = row["time_saved"], row["peak_memory_mb"]
    return (
        f"{train_time_text(row)} per run"
        + (f", {percent(saved, 0)} less than full" if pd.notna(saved) and saved > 0.005 else "")
        + (f"; {memory / 1000:.1f} GB of memory" if pd.notna(memory) else "")
    )


def confidence_text(verdict: Verdict, name: str) -> str:
    """Return how sure it is that the strategy `name` is the one to use, in a few words."""
    if verdict.verdict == "distinguishable":
        return "significantly better than every other tested strategy"
    if verdict.verdict == "not distinguishable":
        others = join_names([other for other in verdict.level if other != name])
        return f"not distinguishable from {others}, and the fastest of them" if others else "not distinguishable"
    return "low: too few seeds for a test" if verdict.verdict == "too few seeds" else "nothing to compare with"


def budget_options(comparison: Comparison) -> list[BudgetOption]:
    """Return the strategies on the Pareto front of training time and test accuracy, the fastest first."""
    rows = strategies_by_budget(comparison)
    return [
        BudgetOption(
            str(row["strategy"]),
            str(row["recipe"]),
            own_seconds(row),
            train_time_text(row),
            percent(row["test_accuracy_mean"]),
            accuracy_interval(row),
            "" if before is None else _describe_gain(row, before, comparison.pairs),
        )
        for before, row in zip([None, *rows], rows, strict=False)
    ]


def _describe_gain(row: Row, before: Row, pairs: pd.DataFrame) -> str:
    """Return the gain in test accuracy over a faster strategy."""
    points = (row["test_accuracy_mean"] - before["test_accuracy_mean"]) * 100
    pair, details = find_pair(row, before, pairs), []
    if pair is not None:
        details.append(f"95% interval {_difference_interval(row, pair)}")
    if pair is not None and pd.notna(pair["p_holm"]):
        details.append(f"p {format_p(pair['p_holm'])}")
    is_tested = pair is None or pd.notna(pair["p_holm"])
    if is_tested and not distinguishable(row, before, pairs):
        details.append("not significant")
    return f"{points:+.1f} points over {before['strategy']}" + (f" ({', '.join(details)})" if details else "")


def data_size_record(size: DataSizeResult) -> dict[str, Any]:
    """Return the row of a training-set size in the report and in report.json."""
    name = recommended_strategy(size.comparison, size.verdict)
    row = _row_of(size.comparison, name)
    return {
        "share": size.share,
        "pictures": size.images,
        "verdict": size.verdict.verdict,
        "use": name,
        "recipe": str(row["recipe"]),
        "accuracy": percent(row["test_accuracy_mean"]),
        "interval": accuracy_interval(row),
        "costs": train_time_text(row),
        "sure": confidence_text(size.verdict, name),
    }
