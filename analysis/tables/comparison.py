"""The comparison: per strategy the recipe that val chose, and its results on test."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import sort_strategies
from analysis.sources.correctness import read_correctness
from analysis.sources.sweep import Sweep
from analysis.tables.aggregate import aggregate_runs, test_set_size
from analysis.tables.notes import confounding_note, fold_notes, unfinished_strategy_notes
from analysis.tables.pairwise import intervals_and_pairs
from analysis.tables.schema import COLUMNS
from analysis.tables.selection import best_by_val, choose_recipes
from analysis.tables.target import epochs_to_target

SEED = 0  # of the bootstrap: the same runs always give the same intervals


@dataclass(frozen=True)
class Comparison:
    """The tables of a sweep.

    Attributes:
        strategies: one row per strategy, of the recipe that val chose: `key` (the recipe as JSON) and COLUMNS.
        recipes: one row per recipe, chosen or not; the same columns.
        target: the val accuracy to reach.
        notes: caveats, one sentence each.
        pairs: pairwise comparisons of the chosen recipes, PAIRS; strategies without predictions are left out.
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
        rng: of the bootstrap; by default the same one each time.
    """
    finished = sweep.finished
    selection, notes = choose_recipes(finished, sweep.race)
    recipes = _recipe_rows(sweep, selection, target)
    pairs, faults = _add_bootstrap_intervals(finished, recipes, np.random.default_rng(SEED) if rng is None else rng)
    strategies = recipes[recipes["chosen"]].reset_index(drop=True)
    notes = [
        *notes,
        *confounding_note(strategies),
        *fold_notes(sweep, strategies),
        *unfinished_strategy_notes(sweep),
        *faults,
    ]
    return Comparison(strategies, recipes, target, tuple(notes), pairs)


def _recipe_rows(sweep: Sweep, selection: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return one row per recipe, `key` and COLUMNS, in the order of strategies and learning rates."""
    finished = sweep.finished
    epochs = epochs_to_target(finished, sweep.epochs, target)
    runs_of_recipe = dict(iter(finished.groupby("recipe", sort=False)))
    runs_of_strategy, recipes_of_strategy = Counter(finished["strategy"]), Counter(selection["strategy"])
    rows = []
    for _, recipe in selection.iterrows():
        runs = runs_of_recipe[recipe["recipe"]]
        rows.append(
            {
                "key": recipe["recipe"],
                "strategy": recipe["strategy"],
                "recipe": recipe["label"],
                "chosen": bool(recipe["chosen"]),
                "runs": runs_of_strategy[recipe["strategy"]],
                "recipes": recipes_of_strategy[recipe["strategy"]],
                "target_accuracy": target,
                **aggregate_runs(runs, epochs.loc[runs.index], test_set_size(runs, sweep.test_images)),
            }
        )
    recipes = pd.DataFrame(rows)
    _add_time_saved(recipes)
    order = {name: index for index, name in enumerate(sort_strategies(recipes["strategy"]))}
    recipes["order"] = recipes["strategy"].map(order)
    return recipes.sort_values(["order", "lr", "recipe", "key"], ignore_index=True)[["key", *COLUMNS]]


def _add_bootstrap_intervals(
    finished: pd.DataFrame, recipes: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Write the bootstrap intervals of chosen recipes into `recipes`; return the pairs, and a note on missing ones.

    A recipe with one run keeps Wilson's interval, as only its images can be resampled.
    """
    chosen = recipes[recipes["chosen"]]
    runs = finished[finished["recipe"].isin(chosen["key"])]
    matrix, faults = read_correctness(runs)
    intervals, pairs = intervals_and_pairs(matrix, runs, chosen["strategy"].tolist(), rng)
    for row, recipe in chosen.iterrows():
        if recipe["strategy"] in intervals and recipe["n"] > 1:
            # Never narrower than for one run: three runs without an error would have no interval at all.
            low, high = intervals[recipe["strategy"]]
            ends = np.nanmin([low, recipe["test_accuracy_low"]]), np.nanmax([high, recipe["test_accuracy_high"]])
            recipes.loc[row, ["test_accuracy_low", "test_accuracy_high"]] = ends
            recipes.loc[row, "interval"] = "bootstrap"
    return pairs, _without_predictions_note(faults)


def _without_predictions_note(faults: list[str]) -> list[str]:
    if not faults:
        return []
    others = len(faults) - 1
    more = f" (and {others} more run{'s' if others > 1 else ''})" if others else ""
    return [
        f"{faults[0]}{more} Without predictions, intervals are for new images only, and two strategies count as "
        "distinguishable only where neither their intervals nor their runs' accuracies overlap."
    ]


def _add_time_saved(recipes: pd.DataFrame) -> None:
    """Write the share of full's training seconds that each recipe saves into `recipes`, and its range over runs."""
    full = recipes[(recipes["strategy"] == "full") & recipes["chosen"]]
    for suffix, own, other in (("", "mean", "mean"), ("_min", "max", "min"), ("_max", "min", "max")):
        seconds = full[f"train_seconds_{other}"].iloc[0] if len(full) else np.nan
        recipes[f"time_saved{suffix}"] = 1 - recipes[f"train_seconds_{own}"] / seconds
    recipes.loc[full.index, ["time_saved_min", "time_saved_max"]] = 0.0 if len(full) else np.nan


def chosen_runs(sweep: Sweep, comparison: Comparison) -> pd.DataFrame:
    """Return the finished runs of the chosen recipes."""
    finished = sweep.finished
    return finished[finished["recipe"].isin(comparison.strategies["key"])]


def best_run(sweep: Sweep, comparison: Comparison) -> pd.Series:
    """Return the best run by val of the chosen recipes."""
    return best_by_val(chosen_runs(sweep, comparison))
