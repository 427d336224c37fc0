"""Caveats of a comparison: confounders, folds, strategies without a finished run."""

import pandas as pd

from analysis.formatting import sort_strategies
from analysis.sources.sweep import Sweep
from analysis.tables.recipes import differing_fields


def confounding_note(strategies: pd.DataFrame) -> list[str]:
    """Return a sentence where the chosen recipes differ in fields that do not belong to a strategy."""
    differing = differing_fields(dict(zip(strategies["strategy"], strategies["key"], strict=True)))
    texts = [
        f"{name} ({', '.join(f'{strategy} {value}' for strategy, value in values.items())})"
        for name, values in differing.items()
    ]
    if not texts:
        return []
    return [f"The chosen recipes differ in more than strategy, schedule and rates: {'; '.join(texts)}."]


def fold_notes(sweep: Sweep, strategies: pd.DataFrame) -> list[str]:
    """Return the caveats of chosen recipes that were run on the folds of a cross-validation."""
    finished, notes = sweep.finished, []
    runs = finished[finished["recipe"].isin(strategies["key"]) & finished["fold"].notna()]
    folds = {name: sorted(group["fold"].astype(int)) for name, group in runs.groupby("strategy")}
    if folds and len({str(folds.get(name)) for name in strategies["strategy"]}) > 1:
        listed = {name: ", ".join(map(str, sorted(set(folds.get(name, []))))) for name in strategies["strategy"]}
        texts = "; ".join(f"{name} {numbers or 'none'}" for name, numbers in listed.items())
        notes.append(f"Not every strategy has the same runs on every fold, and some folds may be harder: {texts}.")
    test_sets = {frozenset(sweep.test_images[run]) for run in runs["run"] if run in sweep.test_images}
    if len(test_sets) > 1 and (strategies["recipes"] > 1).any():
        notes.append(
            "Val images of one fold are test images of another, so the test accuracy of a recipe that val chose among "
            "several may be slightly too high."
        )
    return notes


def unfinished_strategy_notes(sweep: Sweep) -> list[str]:
    """Return a sentence for each strategy without a finished run."""
    tried, finished = sweep.runs.dropna(subset=["strategy"]), set(sweep.finished["strategy"])
    return [
        f"{strategy} is not in the table: none of its {(tried['strategy'] == strategy).sum()} runs is finished."
        for strategy in sort_strategies(tried["strategy"])
        if strategy not in finished
    ]
