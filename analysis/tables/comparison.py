"""The comparison: per arm the recipe that val chose, and its results on test."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.sources.correctness import read_correctness
from analysis.sources.sweep import Sweep
from analysis.tables.aggregate import aggregate_runs, test_set_size
from analysis.tables.arms import ArmFields, find_arm_fields, sort_arms, with_arms
from analysis.tables.notes import confounding_note, fold_notes, selection_note, unfinished_arm_notes
from analysis.tables.pairwise import TestResults, compare_pairs
from analysis.tables.schema import COLUMNS
from analysis.tables.selection import best_by_val, choose_recipes, tested_runs
from analysis.tables.target import epochs_to_target
from finetune.sweep.power import Components

DIFFERENCES = ["difference", "difference_low", "difference_high", "difference_p"]
SEED = 0  # of the random numbers behind the importance of settings


@dataclass(frozen=True)
class Comparison:
    """The tables of a sweep.

    Attributes:
        arms: one row per arm, of the recipe that val chose: `key` (the recipe as JSON) and COLUMNS.
        recipes: one row per recipe, chosen or not; the same columns. Only chosen ones have test results.
        candidate: the arm with the highest mean val accuracy; ties go to the cheaper one. Test plays no part in it.
        pairs: pairwise comparisons of the chosen recipes, PAIRS.
        components: arm -> variance components of its difference to the candidate; those that can be estimated.
        fields: what makes arms.
        target: the val accuracy to reach.
        notes: caveats, one sentence each.
    """

    arms: pd.DataFrame
    recipes: pd.DataFrame
    candidate: str
    pairs: pd.DataFrame
    components: Mapping[str, Components]
    fields: ArmFields
    target: float
    notes: tuple[str, ...]

    def row(self, arm: str) -> "pd.Series":
        """Return the row of an arm."""
        return self.arms[self.arms["arm"] == arm].iloc[0]


def compare(sweep: Sweep, target: float = 0.8, fields: ArmFields | None = None) -> Comparison:
    """Choose a recipe for each arm, and the candidate, on val; then read the test results.

    Args:
        target: val accuracy to reach, a fraction.
        fields: what makes arms; None finds it.
    """
    fields = fields or find_arm_fields(sweep.finished["recipe"].unique())
    sweep = with_arms(sweep, fields)
    finished = sweep.finished
    selection, notes = choose_recipes(finished, sweep.race)
    chosen = selection[selection["chosen"]]
    tested = {row["arm"]: tested_runs(finished, selection, row["recipe"], sweep.race) for _, row in chosen.iterrows()}
    matrix, faults = read_correctness(pd.concat(tested.values()))
    images = {arm: test_set_size(runs, sweep.test_images) for arm, runs in tested.items()}
    results = TestResults(
        {arm: tested[arm] for arm in sort_arms(tested)},
        matrix,
        {arm: np.nan if count is None else float(count) for arm, count in images.items()},
    )
    recipes = _recipe_rows(sweep, selection, target, results)
    candidate = choose_candidate(recipes[recipes["chosen"]])
    pairs = compare_pairs(results, candidate)
    _add_differences(recipes, pairs, candidate)
    arms = recipes[recipes["chosen"]].reset_index(drop=True)
    notes = [
        *notes,
        *selection_note(arms, sweep.race),
        *confounding_note(arms, fields.by),
        *fold_notes(sweep, arms),
        *unfinished_arm_notes(sweep),
        *_without_predictions_note(faults),
    ]
    found = {arm: results.components(candidate, arm) for arm in results.runs if arm != candidate}
    components = {arm: part for arm, part in found.items() if part is not None}
    return Comparison(arms, recipes, candidate, pairs, components, fields, target, tuple(notes))


def choose_candidate(arms: pd.DataFrame) -> str:
    """Return the arm with the highest mean val accuracy; ties go to the one that trains faster, then to the first."""
    ranked = arms.assign(seconds=arms["train_seconds_mean"] - arms["cache_seconds_mean"])
    ranked = ranked.sort_values(["val_accuracy_mean", "seconds"], ascending=[False, True], kind="stable")
    return str(ranked["arm"].iloc[0])


def _recipe_rows(sweep: Sweep, selection: pd.DataFrame, target: float, results: TestResults) -> pd.DataFrame:
    """Return one row per recipe, `key` and COLUMNS, in the order of arms and learning rates."""
    finished = sweep.finished
    epochs = epochs_to_target(finished, sweep.epochs, target)
    runs_of_recipe = dict(iter(finished.groupby("recipe", sort=False)))
    runs_of_arm, recipes_of_arm = Counter(finished["arm"]), Counter(selection["arm"])
    rows = []
    for _, recipe in selection.iterrows():
        runs, arm = runs_of_recipe[recipe["recipe"]], str(recipe["arm"])
        tested = results.runs[arm] if recipe["chosen"] else runs
        rows.append(
            {
                "key": recipe["recipe"],
                "arm": arm,
                "strategy": recipe["strategy"],
                "recipe": recipe["label"],
                "chosen": bool(recipe["chosen"]),
                "runs": runs_of_arm[arm],
                "recipes": recipes_of_arm[arm],
                "target_accuracy": target,
                **aggregate_runs(runs, tested, epochs.loc[runs.index], test_set_size(runs, sweep.test_images)),
            }
        )
    recipes = pd.DataFrame(rows)
    intervals = [results.interval(row["arm"]) if row["chosen"] else (np.nan, np.nan, "") for row in rows]
    recipes[["test_accuracy_low", "test_accuracy_high", "interval"]] = intervals
    recipes[DIFFERENCES] = np.nan
    _add_time_saved(recipes)
    recipes["order"] = recipes["arm"].map({name: index for index, name in enumerate(sort_arms(recipes["arm"]))})
    return recipes.sort_values(["order", "lr", "recipe", "key"], ignore_index=True)[["key", *COLUMNS]]


def _add_differences(recipes: pd.DataFrame, pairs: pd.DataFrame, candidate: str) -> None:
    """Write the differences of chosen recipes to the candidate into `recipes`; the candidate's own stay empty."""
    for row, recipe in recipes[recipes["chosen"] & (recipes["arm"] != candidate)].iterrows():
        pair = pairs[
            pairs["strategy"].isin([recipe["arm"], candidate]) & pairs["other"].isin([recipe["arm"], candidate])
        ]
        sign = 1 if pair["strategy"].iloc[0] == recipe["arm"] else -1
        ends = sorted(sign * pair[f"difference_{end}"].iloc[0] for end in ("low", "high"))
        recipes.loc[row, DIFFERENCES] = [sign * pair["difference"].iloc[0], *ends, pair["p_holm"].iloc[0]]


def mean_components(components: Mapping[str, Components]) -> Components | None:
    """Return the mean over the arms; None where nothing could be estimated."""
    values = [(part.runs, part.images, part.residual) for part in components.values()]
    return Components(*np.mean(values, axis=0).tolist()) if values else None


def _without_predictions_note(faults: list[str]) -> list[str]:
    if not faults:
        return []
    others = len(faults) - 1
    more = f" (and {others} more run{'s' if others > 1 else ''})" if others else ""
    return [
        f"{faults[0]}{more} Without predictions, differences can't be paired by image, and their intervals are wider."
    ]


def _add_time_saved(recipes: pd.DataFrame) -> None:
    """Write the share of full's training seconds that each recipe saves into `recipes`, and its range over runs.

    Only where there is one arm of the strategy full: the others are compared with that.
    """
    full = recipes[(recipes["strategy"] == "full") & recipes["chosen"]]
    full = full if len(full) == 1 else full.iloc[:0]
    for suffix, own, other in (("", "mean", "mean"), ("_min", "max", "min"), ("_max", "min", "max")):
        seconds = full[f"train_seconds_{other}"].iloc[0] if len(full) else np.nan
        recipes[f"time_saved{suffix}"] = 1 - recipes[f"train_seconds_{own}"] / seconds
    recipes.loc[full.index, ["time_saved_min", "time_saved_max"]] = 0.0 if len(full) else np.nan


def chosen_runs(sweep: Sweep, comparison: Comparison) -> pd.DataFrame:
    """Return the finished runs of the chosen recipes."""
    finished = sweep.finished
    return finished[finished["recipe"].isin(comparison.arms["key"])]


def best_run(sweep: Sweep, comparison: Comparison) -> pd.Series:
    """Return the candidate's run with the highest val accuracy."""
    return best_by_val(sweep.finished[sweep.finished["recipe"] == comparison.row(comparison.candidate)["key"]])
