"""The comparison table: per strategy the recipe that val chose over seeds, and what test then said of it."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import in_order
from analysis.sources.outcomes import read_outcomes
from analysis.sources.sweep import Sweep
from analysis.tables.aggregate import aggregate_runs, epochs_to_target, test_set_size
from analysis.tables.notes import confounding_note, fold_notes, unfinished_strategy_notes
from analysis.tables.pairwise import intervals_and_pairs
from analysis.tables.schema import COLUMNS
from analysis.tables.selection import choose_recipes

SEED = 0  # of the bootstrap: the same runs always give the same intervals


@dataclass(frozen=True)
class Comparison:
    """What the tables say.

    Attributes:
        strategies: one row a strategy, the recipe that val chose; COLUMNS, and `key`, the whole recipe.
        recipes: one row a recipe, chosen or not; the same columns.
        target: the val accuracy to reach.
        notes: what a reader must know of the choice, one sentence each.
        pairs: the chosen recipes two by two, `pairs.PAIRS`; strategies without predictions are not in here.
    """

    strategies: pd.DataFrame
    recipes: pd.DataFrame
    target: float
    notes: tuple[str, ...]
    pairs: pd.DataFrame


def compare(sweep: Sweep, target: float = 0.8, rng: np.random.Generator | None = None) -> Comparison:
    """Choose a recipe for each strategy on val, then read its test results.

    Args:
        target: val accuracy to reach, a fraction.
        rng: of the bootstrap; None for the same one each time.
    """
    finished = sweep.finished
    chosen, notes = choose_recipes(finished, sweep.race)
    reached = epochs_to_target(finished, sweep.epochs, target)
    of_strategy, of_recipe = Counter(finished["strategy"]), dict(iter(finished.groupby("recipe", sort=False)))
    recipes_of = Counter(chosen["strategy"])
    rows = []
    for _, recipe in chosen.iterrows():
        runs = of_recipe[recipe["recipe"]]
        rows.append(
            {
                "key": recipe["recipe"],
                "strategy": recipe["strategy"],
                "recipe": recipe["label"],
                "chosen": bool(recipe["chosen"]),
                "runs": of_strategy[recipe["strategy"]],
                "recipes": recipes_of[recipe["strategy"]],
                "target_accuracy": target,
                **aggregate_runs(runs, reached.loc[runs.index], test_set_size(runs, sweep.tested)),
            }
        )
    recipes = pd.DataFrame(rows)
    _save_time(recipes)
    order = {name: index for index, name in enumerate(in_order(recipes["strategy"]))}
    recipes["order"] = recipes["strategy"].map(order)
    recipes = recipes.sort_values(["order", "lr", "recipe", "key"], ignore_index=True)[["key", *COLUMNS]]
    pairs, faults = _add_bootstrap_intervals(finished, recipes, np.random.default_rng(SEED) if rng is None else rng)
    strategies = recipes[recipes["chosen"]].reset_index(drop=True)
    said = (
        *notes,
        *confounding_note(strategies),
        *fold_notes(sweep, strategies),
        *unfinished_strategy_notes(sweep),
        *faults,
    )
    return Comparison(strategies, recipes, target, said, pairs)


def _add_bootstrap_intervals(
    finished: pd.DataFrame, recipes: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Put the bootstrap's intervals of chosen recipes into `recipes`; return the pairs, and what keeps some out.

    One run has Wilson's interval: its pictures are all that can be drawn anew. Several have it at least.
    """
    chosen = recipes[recipes["chosen"]]
    runs = finished[finished["recipe"].isin(chosen["key"])]
    outcomes, faults = read_outcomes(runs)
    intervals, pairs = intervals_and_pairs(outcomes, runs, chosen["strategy"].tolist(), rng)
    for row, recipe in chosen.iterrows():
        if recipe["strategy"] in intervals and recipe["n"] > 1:
            # Never less than for one run: three that name every picture rightly would leave no doubt at all.
            low, high = intervals[recipe["strategy"]]
            ends = np.nanmin([low, recipe["test_accuracy_low"]]), np.nanmax([high, recipe["test_accuracy_high"]])
            recipes.loc[row, ["test_accuracy_low", "test_accuracy_high"]] = ends
            recipes.loc[row, "interval"] = "bootstrap"
    if not faults:
        return pairs, []
    more = f" (and {len(faults) - 1} more runs)" if len(faults) > 1 else ""
    return pairs, [
        f"{faults[0]}{more} Without predictions, intervals are of "
        "pictures alone, and strategies are told apart only where neither intervals nor seeds overlap."
    ]


def _save_time(recipes: pd.DataFrame) -> None:
    """Put into `recipes` the share of full's training seconds that each one saves, and how far single runs differ."""
    full = recipes[(recipes["strategy"] == "full") & recipes["chosen"]]
    for name, ours, theirs in (("", "mean", "mean"), ("_min", "max", "min"), ("_max", "min", "max")):
        of_full = full[f"train_seconds_{theirs}"].iloc[0] if len(full) else np.nan
        recipes[f"time_saved{name}"] = 1 - recipes[f"train_seconds_{ours}"] / of_full
    recipes.loc[full.index, ["time_saved_min", "time_saved_max"]] = 0.0 if len(full) else np.nan


def chosen_runs(sweep: Sweep, comparison: Comparison) -> pd.DataFrame:
    """Return the finished runs of the chosen recipes."""
    finished = sweep.finished
    return finished[finished["recipe"].isin(comparison.strategies["key"])]


def best_run(sweep: Sweep, comparison: Comparison) -> pd.Series:
    """Return the chosen recipes' run with the highest val accuracy; ties go to the lower val loss, then the name."""
    runs = chosen_runs(sweep, comparison).sort_values(
        ["best/val_accuracy", "best/val_loss", "run"], ascending=[False, True, True]
    )
    return runs.iloc[0]
