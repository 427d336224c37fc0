"""What val chooses: a recipe for each arm, and the best run."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.sources.test_sets import REPLICATES
from analysis.tables.arms import sort_arms
from analysis.tables.recipes import distinguishing_labels


def best_by_val(runs: pd.DataFrame) -> "pd.Series[Any]":
    """Return the finished run with the highest val accuracy; ties go to the lower val loss, then to the name."""
    order = ["best/val_accuracy", "best/val_loss", "run"]
    return runs.sort_values(order, ascending=[False, True, True]).iloc[0]


def choose_recipes(finished: pd.DataFrame, race: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per recipe, with the one that val chose for each arm marked, and notes on the choice.

    The recipes of an arm are compared over the replicates (seed and fold) that all of them share: a mean over fewer or
    other seeds is high by luck more often. Ties in val accuracy go to the lower val loss, then to the recipe that sorts
    first.

    Args:
        finished: one row per run with its `arm`, no two with the same recipe, seed and fold.
        race: whether recipes that val did not prefer at the first seed got no further seeds.

    Returns:
        columns recipe, arm, strategy, label, lr, n (runs), val_accuracy and val_loss (over the shared replicates),
        competes, chosen; and the notes.
    """
    labels = distinguishing_labels(dict(zip(finished["recipe"], finished["arm"], strict=True)))
    rows: list[dict[str, Any]] = []
    for _, arm in finished.groupby("arm", sort=True):
        rows += _rank_recipes(arm)
    table = pd.DataFrame(rows)
    table.insert(2, "label", table["recipe"].map(labels))
    return table, _race_note(table) if race else _left_out_notes(table)


def _rank_recipes(arm: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of one arm's recipes; `choose_recipes` adds their labels."""
    runs_of = {str(recipe): runs for recipe, runs in arm.groupby("recipe", sort=True)}
    shared = _shared_replicates(runs_of)
    rows = []
    for recipe, runs in runs_of.items():
        competing = runs[[replicate in shared for replicate in _replicates(runs)]]
        rows.append(
            {
                "recipe": recipe,
                "arm": arm["arm"].iloc[0],
                "strategy": arm["strategy"].iloc[0],
                "lr": runs["lr"].iloc[0],
                "n": len(runs),
                "val_accuracy": _mean(competing["best/val_accuracy"]),
                "val_loss": _mean(competing["best/val_loss"]),
                "competes": len(competing) == len(shared),
                "chosen": False,
            }
        )
    ranked = sorted(
        (row for row in rows if row["competes"]),
        key=lambda row: (math.isnan(row["val_accuracy"]), -row["val_accuracy"], row["val_loss"], row["recipe"]),
    )
    ranked[0]["chosen"] = True
    return rows


def _replicates(runs: pd.DataFrame) -> list[str]:
    return [str(replicate) for replicate in zip(*(runs[name] for name in REPLICATES if name in runs), strict=True)]


def _shared_replicates(runs_of: Mapping[str, pd.DataFrame]) -> set[str]:
    """Return the replicates that the recipes share; those with the fewest runs do not compete where none is shared."""
    sets = sorted((set(_replicates(runs)) for runs in runs_of.values()), key=len)
    while not (shared := set.intersection(*sets)):
        sets = [replicates for replicates in sets if len(replicates) > len(sets[0])] or sets[-1:]
    return shared


def tested_runs(finished: pd.DataFrame, selection: pd.DataFrame, recipe: str, race: bool) -> pd.DataFrame:
    """Return the runs that the test accuracy of a chosen recipe is the mean of.

    In a race the first seed chose the recipe, so its test accuracy is too high by luck; it is left out where at least
    two further runs remain (Cawley and Talbot, JMLR 11, 2010, on selection and report from the same runs).
    """
    runs = finished[finished["recipe"] == recipe]
    arm = selection.loc[selection["recipe"] == recipe, "arm"].iloc[0]
    rivals = finished[(finished["arm"] == arm) & (finished["recipe"] != recipe)]
    if not race or rivals.empty:
        return runs
    used = set(_replicates(rivals))
    further = runs[[replicate not in used for replicate in _replicates(runs)]]
    return further if len(further) > 1 else runs


def _mean(values: "pd.Series[float]") -> float:
    """Return the mean, the same for any order of the values: a difference in the last bits would break ties."""
    known = values.dropna()
    return round(fmean(sorted(known)), 12) if len(known) else math.nan


def _left_out_notes(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each arm on its recipes that did not compete."""
    notes = []
    for arm in sort_arms(table["arm"]):
        lost = table[(table["arm"] == arm) & ~table["competes"]]
        if len(lost):
            listed = "; ".join(f"{label} ({runs})" for label, runs in zip(lost["label"], lost["n"], strict=True))
            notes.append(
                f"{arm}: recipes that share no seed or fold with the others did not compete: {listed}. Finish their "
                "runs to include them."
            )
    return notes


def _race_note(table: pd.DataFrame) -> list[str]:
    """Return a sentence on the recipes that a race gave no further seeds, and on how to run them."""
    lost = [row for arm in sort_arms(table["arm"]) for _, row in table[table["arm"] == arm].iterrows()]
    texts = [f"{row['arm']} {row['label']}" for row in lost if not row["chosen"]]
    if not texts:
        return []
    return [
        "A race: recipes that val did not prefer at the first seed got no further seeds: "
        f"{'; '.join(texts)}. To run the rest, repeat the command of the sweep with --no-race."
    ]
