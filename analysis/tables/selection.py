"""What val chooses: a recipe for each strategy, and the best run."""

import math
from statistics import fmean
from typing import Any

import pandas as pd

from analysis.formatting import sort_strategies
from analysis.tables.recipes import distinguishing_labels


def best_by_val(runs: pd.DataFrame) -> "pd.Series[Any]":
    """Return the finished run with the highest val accuracy; ties go to the lower val loss, then to the name."""
    order = ["best/val_accuracy", "best/val_loss", "run"]
    return runs.sort_values(order, ascending=[False, True, True]).iloc[0]


def choose_recipes(finished: pd.DataFrame, race: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per recipe, with the one that val chose for each strategy marked, and notes on the choice.

    Only recipes with the strategy's largest number of runs compete: a mean over fewer seeds is high by luck more often.
    Ties in val accuracy go to the lower val loss, then to the recipe that sorts first.

    Args:
        finished: one row per run, no two with the same recipe, seed and fold.
        race: whether recipes that val did not prefer at the first seed got no further seeds.

    Returns:
        columns recipe, strategy, label, lr, n (runs), val_accuracy, val_loss, competes, chosen; and the notes.
    """
    labels = distinguishing_labels(finished["recipe"].unique())
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
    table.insert(2, "label", table["recipe"].map(labels))
    table["competes"] = table["n"] == table.groupby("strategy")["n"].transform("max")
    ranked = table[table["competes"]].sort_values(
        ["val_accuracy", "val_loss", "recipe"], ascending=[False, True, True], na_position="last"
    )
    table["chosen"] = table["recipe"].isin(ranked.groupby("strategy")["recipe"].first())
    has_folds = "fold" in finished and bool(finished["fold"].notna().any())
    return table, _race_note(table) if race else _fewer_runs_notes(table, "runs" if has_folds else "seeds")


def _mean(values: "pd.Series[float]") -> float:
    """Return the mean, the same for any order of the values: a difference in the last bits would break ties."""
    known = values.dropna()
    return round(fmean(sorted(known)), 12) if len(known) else math.nan


def _fewer_runs_notes(table: pd.DataFrame, replicates: str) -> list[str]:
    """Return a sentence for each strategy on its recipes that did not compete."""
    notes = []
    for strategy in sort_strategies(table["strategy"]):
        group = table[table["strategy"] == strategy]
        short = group[~group["competes"]]
        if len(short):
            listed = "; ".join(f"{label} ({runs})" for label, runs in zip(short["label"], short["n"], strict=True))
            notes.append(
                f"{strategy}: recipes with fewer {replicates} than the {group['n'].max()} of the others did not "
                f"compete: {listed}. Finish their runs to include them."
            )
    return notes


def _race_note(table: pd.DataFrame) -> list[str]:
    """Return a sentence on the recipes that a race gave no further seeds, and on how to run them."""
    lost = table[~table["competes"]]
    if lost.empty:
        return []
    strategies = sort_strategies(lost["strategy"])
    ordered = [row for name in strategies for _, row in lost[lost["strategy"] == name].iterrows()]
    listed = "; ".join(f"{row['strategy']} {row['label']}" for row in ordered)
    return [
        "A race: recipes that val did not prefer at the first seed got no further seeds and did not compete: "
        f"{listed}. To run the rest, repeat the command of the sweep with --no-race."
    ]
