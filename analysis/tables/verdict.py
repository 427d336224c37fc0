"""The answer first: which strategy did best, by how much, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.formatting import format_interval, format_p, format_points, percent, train_time_text
from analysis.stats.tests import ALPHA
from analysis.tables.comparison import Comparison
from analysis.tables.pairwise import RUNS_NEEDED
from analysis.tables.replicates import join_replicate_labels, replicate_kind


@dataclass(frozen=True)
class Verdict:
    """What the comparison says.

    Attributes:
        verdict: "distinguishable", "not distinguishable", "too few seeds" or "nothing to compare".
        best: the strategy with the highest mean test accuracy among the recipes that val chose.
        second: the next one, or None.
        lead: how much higher best's mean test accuracy is than second's, a fraction; None without a second.
        level: strategies that can't be told from the best, the best first; only those with enough seeds.
        headline: the answer in one sentence.
        sentences: what belongs to it.
    """

    verdict: str
    best: str
    second: str | None
    lead: float | None
    level: tuple[str, ...]
    headline: str
    sentences: tuple[str, ...]


def decide(comparison: Comparison) -> Verdict:
    """Return the answer that this many seeds and pictures allow."""
    ranked = comparison.strategies.sort_values(
        ["test_accuracy_mean", "train_seconds_mean"], ascending=[False, True], kind="stable"
    )
    rows = [row for _, row in ranked.iterrows()]
    best = rows[0]
    name, score = str(best["strategy"]), percent(best["test_accuracy_mean"])
    if len(rows) == 1:
        headline = f"{name} reached {score} on test with {_seeds(best)}; there is no other strategy to compare it with."
        return Verdict("nothing to compare", name, None, None, (), headline, (f"The recipe: {_recipe(best)}",))
    second = rows[1]
    lead = float(best["test_accuracy_mean"] - second["test_accuracy_mean"])
    ahead = f"{score} on test, {lead * 100:.1f} points above {second['strategy']}"
    fewest = min(best["n"], second["n"])
    if fewest < RUNS_NEEDED:
        headline = (
            f"No verdict yet: {name} is ahead with {ahead}, but {_seeds(best, second)} can't show that it is better."
        )
        one = _unit(best, second)
        mend = (
            f"At least {RUNS_NEEDED} {one}s a recipe are needed. Add values to {'fold' if one == 'fold' else 'seed'} "
            "in the sweep file and run it again: only what is missing is run."
        )
        return Verdict(
            "too few seeds", name, str(second["strategy"]), lead, (), headline, (f"Ahead so far: {_recipe(best)}", mend)
        )
    judged = [row for row in rows if row["n"] >= RUNS_NEEDED]
    level = [row for row in judged if row is best or not distinguishable(best, row, comparison.pairs)]
    unjudged = _untested_note([row for row in rows if row["n"] < RUNS_NEEDED])
    names = tuple(str(row["strategy"]) for row in level)
    if len(level) == 1:
        headline = f"Use {name}: {ahead}, with {_seeds(best, second)} each."
        one = _unit(best, second)
        sure = _difference(best, second, comparison.pairs) or (
            f"Their 95% intervals do not overlap, and every {one} of it did better than every {one} of the next."
        )
        return Verdict(
            "distinguishable",
            name,
            str(second["strategy"]),
            lead,
            names,
            headline,
            (f"The recipe: {_recipe(best)}", sure, *unjudged),
        )
    headline = f"{join_names(names)} are not distinguishable with {_seeds(*level)}: {name} is ahead with {ahead}."
    why = _difference(best, level[1], comparison.pairs) or _why_not(best, level[1])
    return Verdict(
        "not distinguishable",
        name,
        str(second["strategy"]),
        lead,
        names,
        headline,
        (f"Ahead: {_recipe(best)}", why, *_fastest_note(level), *unjudged),
    )


def _untested_note(rows: "list[pd.Series[Any]]") -> tuple[str, ...]:
    """Return what is said of strategies behind the first two that have too few seeds for a verdict."""
    if not rows:
        return ()
    names = join_names(tuple(str(row["strategy"]) for row in rows))
    return (f"No verdict on {names}, with {_seeds(*rows)}: {RUNS_NEEDED} are needed.",)


def distinguishable(one: "pd.Series[Any]", other: "pd.Series[Any]", pairs: pd.DataFrame) -> bool:
    """Whether two strategies clearly differ, on other pictures and with other seeds.

    By the paired bootstrap with Holm's correction. Where predictions are missing, by accuracies alone: their intervals
    and their seeds must be apart, which is said too rarely. Not where one of them has too few seeds.
    """
    if min(one["n"], other["n"]) < RUNS_NEEDED:
        return False
    pair = pair_of(one, other, pairs)
    if pair is not None:
        return bool(pair["p_holm"] < ALPHA)
    return _apart(one, other, "low", "high") and _apart(one, other, "min", "max")


def pair_of(one: "pd.Series[Any]", other: "pd.Series[Any]", pairs: pd.DataFrame) -> "pd.Series[Any] | None":
    """Return the row of these two strategies, whichever stands first, or None."""
    names = {one["strategy"], other["strategy"]}
    found = pairs[pairs["strategy"].isin(names) & pairs["other"].isin(names)]
    return found.iloc[0] if len(found) else None


def _difference(best: "pd.Series[Any]", second: "pd.Series[Any]", pairs: pd.DataFrame) -> str | None:
    """Return the interval of the difference between the first two, and what the test says, in words."""
    pair = pair_of(best, second, pairs)
    if pair is None:
        return None
    ends = sorted(
        (1 if pair["strategy"] == best["strategy"] else -1) * pair[f"difference_{end}"] for end in ("low", "high")
    )
    if pd.isna(pair["p_holm"]):
        return (
            f"On the same test pictures, {best['strategy']} minus {second['strategy']} is {format_points(*ends)} (95% "
            f"interval); with {_seeds(best, second)} what seeds change is hardly known."
        )
    held = (
        "can be told from none" if pair["p_holm"] < ALPHA else "can't be told from none, which does not make them equal"
    )
    units = f"{_unit(best, second)}s"
    return (
        f"On the same test pictures, {best['strategy']} minus {second['strategy']} is {format_points(*ends)} "
        f"(95% interval over pictures and {units}; p {format_p(pair['p_holm'])} after Holm's correction): it {held}."
    )


def _apart(one: "pd.Series[Any]", other: "pd.Series[Any]", low: str, high: str) -> bool:
    """Whether two ranges do not touch. An unknown range is not apart from anything: comparing with NaN is False."""
    low, high = f"test_accuracy_{low}", f"test_accuracy_{high}"
    return bool(one[low] > other[high] or other[low] > one[high])


def _why_not(best: "pd.Series[Any]", second: "pd.Series[Any]") -> str:
    """Return what keeps the two apart from being told apart."""
    shown = [format_interval(row["test_accuracy_low"], row["test_accuracy_high"]) for row in (best, second)]
    if pd.isna(best["test_accuracy_low"]):
        return "The size of the test set is not known, so there is no interval to judge by."
    if _apart(best, second, "low", "high"):
        return f"Their {_unit(best, second)}s overlap, although their 95% intervals ({shown[0]} and {shown[1]}) do not."
    return f"The 95% intervals of the first two overlap: {shown[0]} and {shown[1]}. That does not make them equal."


def fastest(level: "list[pd.Series[Any]]") -> "pd.Series[Any] | None":
    """Return which of these strategies trains fastest, filling caches left out; None where none tells.

    Args:
        level: the best one first, which comes first among equals.
    """
    known = [row for row in level if pd.notna(own_seconds(row))]
    return min(known, key=own_seconds, default=None)


def own_seconds(row: "pd.Series[Any]") -> float:
    """Return the seconds that a run of this strategy trains, without filling caches, which others use too."""
    return float(row["train_seconds_mean"] - row["cache_seconds_mean"])


def _fastest_note(level: "list[pd.Series[Any]]") -> tuple[str, ...]:
    """Return which of the strategies on a level costs least."""
    cheap, best = fastest(level), level[0]
    if cheap is None:
        return ()
    if cheap is best:
        return (f"{best['strategy']} also trained fastest of them.",)
    took = f"{train_time_text(cheap)} a run against {train_time_text(best)}"
    score = percent(cheap["test_accuracy_mean"])
    return (f"Of these, {cheap['strategy']} trained fastest: {took}, with {score} on test.",)


def _recipe(row: "pd.Series[Any]") -> str:
    tried = f"; val chose it among {row['recipes']} recipes" if row["recipes"] > 1 else ""
    return f"{row['strategy']}, {row['recipe']}{tried}. A run took {train_time_text(row)} of training."


def _seeds(*rows: "pd.Series[Any]") -> str:
    """Return "3 seeds", or "2 and 3 seeds" where the numbers differ; likewise for folds."""
    return join_replicate_labels(str(row["over"]) for row in rows)


def _unit(*rows: "pd.Series[Any]") -> str:
    return replicate_kind(str(row["over"]) for row in rows)


def join_names(names: tuple[str, ...]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
