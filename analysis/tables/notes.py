"""Caveats of a comparison: confounders, selection, folds, arms without a finished run."""

from collections.abc import Collection

import pandas as pd

from analysis.sources.sweep import Sweep
from analysis.tables.arms import sort_arms
from analysis.tables.recipes import differing_fields


def confounding_note(arms: pd.DataFrame, fields: Collection[str]) -> list[str]:
    """Return a sentence where the chosen recipes differ in fields that make no arms.

    Args:
        fields: that make arms.
    """
    differing = differing_fields(dict(zip(arms["arm"], arms["key"], strict=True)), fields)
    texts = [
        f"{name} ({', '.join(f'{arm} {value}' for arm, value in values.items())})" for name, values in differing.items()
    ]
    return [f"Not a like-for-like comparison: the chosen recipes differ in {'; '.join(texts)}."] if texts else []


def selection_note(arms: pd.DataFrame, race: bool) -> list[str]:
    """Return a sentence on runs that both chose a recipe and report its test accuracy, or on those left out for that.

    Args:
        arms: rows of the chosen recipes.
    """
    several = arms[arms["recipes"] > 1]
    if several.empty:
        return []
    left_out = several[several["n_tested"] < several["n"]]
    if race and len(left_out) == len(several):
        return ["Test results leave out the seed that chose the recipe in the race: with it they would be too high."]
    counts = ", ".join(f"{row['arm']} {row['recipes']}" for _, row in several.iterrows())
    return [
        f"Val chose among several recipes ({counts}) by the runs that test results are reported of. The test accuracy "
        "of a recipe that won by a lucky seed is slightly too high."
    ]


def fold_notes(sweep: Sweep, arms: pd.DataFrame) -> list[str]:
    """Return the caveats of chosen recipes that were run on the folds of a cross-validation."""
    finished, notes = sweep.finished, []
    runs = finished[finished["recipe"].isin(arms["key"]) & finished["fold"].notna()]
    folds = {name: sorted(group["fold"].astype(int)) for name, group in runs.groupby("arm")}
    if folds and len({str(folds.get(name)) for name in arms["arm"]}) > 1:
        listed = {name: ", ".join(map(str, sorted(set(folds.get(name, []))))) for name in arms["arm"]}
        texts = "; ".join(f"{name} {numbers or 'none'}" for name, numbers in listed.items())
        notes.append(f"Not every arm has the same runs on every fold, and some folds may be harder: {texts}.")
    test_sets = {frozenset(sweep.test_images[run]) for run in runs["run"] if run in sweep.test_images}
    if len(test_sets) > 1 and (arms["recipes"] > 1).any():
        notes.append(
            "Val images of one fold are test images of another, so the test accuracy of a recipe that val chose among "
            "several may be slightly too high."
        )
    return notes


def unfinished_arm_notes(sweep: Sweep) -> list[str]:
    """Return a sentence for each arm without a finished run."""
    tried, finished = sweep.runs.dropna(subset=["arm"]), set(sweep.finished["arm"])
    return [
        f"{arm} is not in the table: none of its {(tried['arm'] == arm).sum()} runs is finished."
        for arm in sort_arms(tried["arm"])
        if arm not in finished
    ]
