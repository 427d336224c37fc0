"""Which recipe val chooses for each strategy."""

import math
from statistics import fmean

import pandas as pd

from analysis.formatting import in_order
from analysis.tables.recipes import distinguishing_labels


def choose_recipes(finished: pd.DataFrame, race: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return one row a recipe, with the one that val chose for each strategy marked, and what has to be said of it.

    Only recipes with the strategy's largest number of runs compete: a mean over fewer seeds is higher by luck more
    often. A tie in val accuracy goes to the lower val loss, then to the recipe that comes first in the alphabet.

    Args:
        finished: one row a run, no two of the same recipe, seed and fold.
        race: whether recipes that val did not prefer at the first seed were left with that.

    Returns:
        columns recipe, strategy, label, lr, n (runs), val_accuracy, val_loss, competes, chosen; and the notes.
    """
    names = distinguishing_labels(finished["recipe"].unique())
    groups = finished.groupby("recipe", sort=True)
    table = pd.DataFrame(
        {
            "strategy": groups["strategy"].first(),
            "lr": groups["lr"].first(),
            "n": groups.size(),
            "val_accuracy": groups["best/val_accuracy"].agg(_mean),
            "val_loss": groups["best/val_loss"].agg(_mean),
        }
    ).reset_index()
    table.insert(2, "label", table["recipe"].map(names))
    most = table.groupby("strategy")["n"].transform("max")
    table["competes"] = table["n"] == most
    order = table[table["competes"]].sort_values(
        ["val_accuracy", "val_loss", "recipe"], ascending=[False, True, True], na_position="last"
    )
    table["chosen"] = table["recipe"].isin(order.groupby("strategy")["recipe"].first())
    has_folds = "fold" in finished and bool(finished["fold"].notna().any())
    return table, _race_note(table) if race else _fewer_runs_notes(table, "runs" if has_folds else "seeds")


def _mean(values: "pd.Series[float]") -> float:
    """Return the mean, the same for the same values in any order: in the last bits a tie would be none."""
    told = values.dropna()
    return round(fmean(sorted(told)), 12) if len(told) else math.nan


def _fewer_runs_notes(table: pd.DataFrame, units: str) -> list[str]:
    """Say of each strategy which recipes did not compete."""
    notes = []
    for strategy in in_order(table["strategy"]):
        group = table[table["strategy"] == strategy]
        short = group[~group["competes"]]
        if len(short):
            listed = "; ".join(f"{label} ({runs})" for label, runs in zip(short["label"], short["n"], strict=True))
            notes.append(
                f"{strategy}: recipes with fewer {units} than the {group['n'].max()} of the others did not compete: "
                f"{listed}. Finish their runs to let them."
            )
    return notes


def _race_note(table: pd.DataFrame) -> list[str]:
    """Say once what a race has left out, and how to have it."""
    lost = table[~table["competes"]]
    if lost.empty:
        return []
    ordered = [row for name in in_order(lost["strategy"]) for _, row in lost[lost["strategy"] == name].iterrows()]
    listed = "; ".join(f"{row['strategy']} {row['label']}" for row in ordered)
    return [
        f"A race: recipes that val did not prefer at the first seed got no more, and did not compete: {listed}. "
        "The command that ran the sweep, with --no-race, runs the rest."
    ]
