"""The verdict, the recommendation and the results by training-set size, as sentences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.formatting import (
    NONE,
    accuracy_interval,
    format_duration,
    format_p,
    format_points,
    percent,
    train_time_text,
)
from analysis.stats.tests import ALPHA, LEVEL, expected_best
from analysis.tables.comparison import Comparison
from analysis.tables.data_size import DataSizeResult
from analysis.tables.recipes import join_replicate_labels
from analysis.tables.verdict import Difference, Verdict, arms_by_budget, find_pair, own_seconds
from finetune.sweep.power import interval_half_width
from finetune.system.output import count_text

MORE_RUNS = 2  # seeds that the report offers to add
Row = pd.Series  # an arm's row of the comparison


@dataclass(frozen=True)
class VerdictText:
    """The verdict in one sentence, and the sentences that explain it."""

    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class BudgetOption:
    """An arm on the Pareto front of training time and val accuracy.

    Attributes:
        seconds: training time of a run, filling caches left out.
        gain: the difference in test accuracy to the option before; "" for the first.
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
    best, row = comparison.row(verdict.candidate), comparison.row(verdict.recommended)
    sentences = [
        f"The recipe: {_describe_recipe(row)}",
        *_compare_with_others(verdict),
        *(_describe_alternative(comparison, verdict, other) for other in verdict.alternatives),
        *_describe_detectable(verdict),
        *_describe_search(comparison, verdict),
    ]
    return VerdictText(_headline(best, row, verdict), tuple(sentences))


def _headline(best: Row, row: Row, verdict: Verdict) -> str:
    score, runs = percent(row["test_accuracy_mean"]), _count_runs(row)
    if not verdict.differences:
        return f"{row['arm']} reached {score} on test ({runs}); there is nothing to compare it with."
    if not verdict.is_tested:
        return (
            f"No verdict yet: {best['arm']} is ahead on val ({percent(best['val_accuracy_mean'])}; {score} on test), "
            "but a difference can only be tested with at least 2 runs of each. Add seeds and run the sweep again."
        )
    margin = _points(verdict.margin)
    if verdict.recommended != verdict.candidate:
        other = next(other for other in verdict.differences if other.arm == verdict.recommended)
        price = f"{train_time_text(row)} a run instead of {train_time_text(best)}"
        loss = (
            f"at most {_points(-other.bound)} less accurate than {verdict.candidate}"
            if other.bound < 0
            else f"not less accurate than {verdict.candidate}"
        )
        return f"Use {verdict.recommended}: {price}; {loss} ({LEVEL:.0%} confidence)."
    better = [other.arm for other in verdict.differences if other.is_significant and other.difference > 0]
    if better:
        return (
            f"Val and test disagree: val prefers {best['arm']} ({score} on test, {runs}), but {join_names(better)} is "
            "significantly more accurate on test. Check that val and test images come from the same source."
        )
    if not verdict.level:
        return f"Use {best['arm']}: {score} on test ({runs}), significantly better than {_all_others(verdict)}."
    if all(not other.cost_seconds < own_seconds(best) for other in verdict.differences):
        return f"Use {best['arm']}: highest val accuracy, {score} on test ({runs}), and no other arm trains faster."
    return (
        f"Use {best['arm']}: highest val accuracy, {score} on test ({runs}); no cheaper arm is shown to lose less than "
        f"{margin} ({LEVEL:.0%} confidence)."
    )


def _all_others(verdict: Verdict) -> str:
    names = [other.arm for other in verdict.differences if other.is_significant]
    return names[0] if len(names) == 1 else f"all {len(names)} others"


def _compare_with_others(verdict: Verdict) -> list[str]:
    """Return which arms differ significantly from the candidate, and how far the others may be from it."""
    if not verdict.differences or not verdict.is_tested:
        return []
    worse = [other for other in verdict.differences if other.is_significant and other.difference < 0]
    better = [other for other in verdict.differences if other.is_significant and other.difference > 0]
    sentences = []
    if worse:
        listed = ", ".join(f"{other.arm} ({_signed(other.difference)})" for other in worse)
        sentences.append(f"Significantly less accurate than {verdict.candidate} on test: {listed}.")
    if better:
        listed = ", ".join(f"{other.arm} ({_signed(other.difference)})" for other in better)
        sentences.append(f"Significantly more accurate than {verdict.candidate} on test: {listed}.")
    untested = [other.arm for other in verdict.differences if math.isnan(other.p)]
    if untested:
        them = "it has a single run" if len(untested) == 1 else "they have single runs"
        sentences.append(f"Not tested, as {them}: {join_names(untested)}.")
    sentences += [
        f"{other.arm} minus {verdict.candidate} is {_signed(other.difference)} "
        f"({format_points(other.low, other.high)}, p {format_p(other.p_holm)}): not significant; the data are "
        "compatible with any difference in this interval."
        for other in verdict.differences
        if other.arm in verdict.level
    ]
    return sentences


def _describe_alternative(comparison: Comparison, verdict: Verdict, other: Difference) -> str:
    """Return the price and the risk of a cheaper arm, and what more seeds would tell about it."""
    row, best = comparison.row(other.arm), comparison.row(verdict.candidate)
    text = (
        f"If time matters: {other.arm} takes {train_time_text(row)} instead of {train_time_text(best)} a run and "
        f"measured {_relative(other.difference, verdict.candidate)}"
    )
    if math.isnan(other.low):
        return f"{text}."
    text = f"{text} (95% interval: {_end(other.low)} to {_end(other.high)})"
    components = comparison.components.get(other.arm)
    if components is None:
        return f"{text}."
    width = interval_half_width(components, verdict.runs_per_arm + MORE_RUNS, verdict.test_images)
    seconds = MORE_RUNS * (other.cost_seconds + own_seconds(best))
    if math.isnan(seconds) or width >= (other.high - other.low) / 2:
        return f"{text}."
    return (
        f"{text}; {MORE_RUNS} more seeds of both, {format_duration(seconds)}, would narrow that to about "
        f"{_points(width)} either way."
    )


def _describe_detectable(verdict: Verdict) -> list[str]:
    """Return which difference this sweep can detect, and what more runs would bring."""
    if math.isnan(verdict.detectable):
        return []
    runs = verdict.runs_per_arm
    return [
        f"With {runs} runs an arm and {verdict.test_images:,.0f} test images this sweep can detect differences of "
        f"about {_points(verdict.detectable)} (80% power); with {runs + MORE_RUNS} runs, "
        f"{_points(verdict.detectable_with_more)}."
    ]


def _describe_search(comparison: Comparison, verdict: Verdict) -> list[str]:
    """Return what a search with one run per recipe tells: how good a recipe each arm gives after as many tries."""
    tried = {str(arm): sorted(group["val_accuracy_mean"]) for arm, group in comparison.recipes.groupby("arm")}
    tries = min(map(len, tried.values())) // 2
    if verdict.is_tested or not verdict.differences or tries < 2:
        return []
    arms = [str(arm) for arm in comparison.arms["arm"]]
    means = [f"{percent(expected_best(tried[arm], tries))}" for arm in arms]
    texts = [f"{means[0]} val accuracy on average with {arms[0]}"]
    texts += [f"{mean} with {arm}" for mean, arm in zip(means[1:], arms[1:], strict=True)]
    return [f"The best of {tries} recipes has {join_names(texts)}. One run per recipe tells no more."]


def _points(share: float) -> str:
    """Return a share as points: "1 point", "2 points", "4.8 points"."""
    text = f"{share * 100:.1f}".removesuffix(".0")
    return f"{text} point{'' if text == '1' else 's'}"


def _signed(difference: float) -> str:
    """Return a difference with its sign; a difference that rounds to 0 has none."""
    return "0.0 points" if abs(difference) < 0.0005 else f"{difference * 100:+.1f} points"


def _relative(difference: float, candidate: str) -> str:
    """Return "0.9 points lower than full", or "the same accuracy as full"."""
    if abs(difference) < 0.0005:
        return f"the same accuracy as {candidate}"
    return f"{_points(abs(difference))} {'lower' if difference < 0 else 'higher'} than {candidate}"


def _end(difference: float) -> str:
    return f"{abs(difference) * 100:.1f} {'lower' if difference < 0 else 'higher'}"


def _describe_recipe(row: Row) -> str:
    tried = f", selected among {row['recipes']} recipes by val accuracy" if row["recipes"] > 1 else ""
    return f"{row['arm']}, {row['recipe']}{tried}. Training took {train_time_text(row)} per run."


def _count_runs(row: Row) -> str:
    """Return what a test mean is over: "3 seeds", or "2 runs" where a race's first seed is left out."""
    return join_replicate_labels([str(row["over"])]) if row["n_tested"] == row["n"] else f"{row['n_tested']} runs"


def join_names(names: "tuple[str, ...] | list[str]") -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def recommendation_facts(
    comparison: Comparison, verdict: Verdict, data: dict[str, Any], origin: Mapping[str, list[str]]
) -> dict[str, str]:
    """Return the facts of the recommendation by their headings, in order.

    Args:
        data: see `data_facts`.
        origin: see `origin_facts`.
    """
    row = comparison.row(verdict.recommended)
    accuracy, interval = percent(row["test_accuracy_mean"]), accuracy_interval(row)
    facts = {
        "Use" if verdict.is_tested else "Ahead so far": f"{row['arm']}, {row['recipe']}",
        "Test accuracy": accuracy + (f" ({interval})" if interval != NONE else ""),
        "Cost": _describe_cost(row),
        "Confidence": confidence_text(verdict),
    }
    if verdict.differences:
        facts["Margin"] = f"{_points(verdict.margin)}: a smaller loss is accepted for a lower cost"
    size, classes = data["splits"]["train"], len(data["classes"])
    if size:
        facts["For data like"] = f"{size:,} training images" + (f" of {classes} classes" if classes else "")
    facts["Measured on"] = "; ".join(", ".join(origin[name]) for name in ("device", "finished") if origin.get(name))
    return {heading: fact for heading, fact in facts.items() if fact}


def _describe_cost(row: Row) -> str:
    """Return training time, time saved against full, and memory, as far as they are known."""
    saved, memory = row["time_saved"], row["peak_memory_mb"]
    return (
        f"{train_time_text(row)} per run"
        + (f", {percent(saved, 0)} less than full" if pd.notna(saved) and saved > 0.005 else "")
        + (f"; {memory / 1000:.1f} GB of memory" if pd.notna(memory) else "")
    )


def confidence_text(verdict: Verdict) -> str:
    """Return how sure it is that the recommended arm is the one to use, in a few words."""
    if not verdict.differences:
        return "nothing to compare with"
    if not verdict.is_tested:
        return "low: single runs can't be tested"
    if verdict.recommended != verdict.candidate:
        other = next(other for other in verdict.differences if other.arm == verdict.recommended)
        return f"{LEVEL:.0%} that it loses at most {_points(max(-other.bound, 0.0))} against {verdict.candidate}"
    if not verdict.level:
        count = count_text(len(verdict.differences), "comparison")
        return f"better than every other arm (p < {ALPHA:.2g}, corrected for {count})"
    return f"highest val accuracy; not significantly different from {join_names(verdict.level)}"


def budget_options(comparison: Comparison) -> list[BudgetOption]:
    """Return the arms on the Pareto front of training time and val accuracy, the fastest first."""
    rows = arms_by_budget(comparison)
    return [
        BudgetOption(
            str(row["arm"]),
            str(row["recipe"]),
            own_seconds(row),
            train_time_text(row),
            percent(row["test_accuracy_mean"]),
            accuracy_interval(row),
            "" if before is None else _describe_gain(comparison, row, before),
        )
        for before, row in zip([None, *rows], rows, strict=False)
    ]


def _describe_gain(comparison: Comparison, row: Row, before: Row) -> str:
    """Return the difference in test accuracy to a faster arm, with its interval."""
    pair = find_pair(comparison, str(row["arm"]), str(before["arm"]))
    sign = 1 if pair["strategy"] == row["arm"] else -1
    low, high = sorted(sign * float(pair[f"difference_{end}"]) for end in ("low", "high"))
    interval = "" if math.isnan(low) else f" (95% interval {format_points(low, high)})"
    return f"{_signed(sign * float(pair['difference']))} over {before['arm']}{interval}"


def data_size_record(size: DataSizeResult) -> dict[str, Any]:
    """Return the row of a training-set size in the report and in report.json."""
    row = size.comparison.row(size.verdict.recommended)
    return {
        "share": size.share,
        "pictures": size.images,
        "verdict": size.verdict.status,
        "use": size.verdict.recommended,
        "recipe": str(row["recipe"]),
        "accuracy": percent(row["test_accuracy_mean"]),
        "interval": accuracy_interval(row),
        "costs": train_time_text(row),
        "sure": confidence_text(size.verdict),
    }
