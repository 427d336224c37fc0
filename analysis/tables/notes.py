"""Notes on a comparison: confounders, folds, strategies without a finished run."""

import pandas as pd

from analysis.formatting import in_order
from analysis.sources.sweep import Sweep
from analysis.tables.recipes import differing_fields


def confounding_note(strategies: pd.DataFrame) -> list[str]:
    """Return a sentence where the chosen recipes differ in more than what a strategy is."""
    differing = differing_fields(dict(zip(strategies["strategy"], strategies["key"], strict=True)))
    told = [
        f"{name} ({', '.join(f'{strategy} {value}' for strategy, value in values.items())})"
        for name, values in differing.items()
    ]
    return [f"The chosen recipes differ in more than strategy, schedule and rates: {'; '.join(told)}."] if told else []


def fold_notes(sweep: Sweep, strategies: pd.DataFrame) -> list[str]:
    """Return what a reader must know where the chosen recipes were run on the folds of a cross-validation."""
    finished, notes = sweep.finished, []
    runs = finished[finished["recipe"].isin(strategies["key"]) & finished["fold"].notna()]
    folds = {name: sorted(group["fold"].astype(int)) for name, group in runs.groupby("strategy")}
    listed = {name: ", ".join(map(str, sorted(set(folds.get(name, []))))) for name in strategies["strategy"]}
    if folds and len({str(folds.get(name)) for name in strategies["strategy"]}) > 1:
        told = "; ".join(f"{name} {numbers or 'none'}" for name, numbers in listed.items())
        notes.append(f"Not every strategy has the same runs on every fold, and some folds may be harder: {told}.")
    tests = {frozenset(sweep.tested[run]) for run in runs["run"] if run in sweep.tested}
    if len(tests) > 1 and (strategies["recipes"] > 1).any():
        notes.append(
            "Pictures that choose in one fold are tested in another. So the test accuracy of a recipe that val chose "
            "among several may be a little too high."
        )
    return notes


def unfinished_strategy_notes(sweep: Sweep) -> list[str]:
    """Return a sentence for each strategy that was tried and has no finished run."""
    tried, finished = sweep.runs.dropna(subset=["strategy"]), set(sweep.finished["strategy"])
    return [
        f"{strategy} is not in the table: none of its {(tried['strategy'] == strategy).sum()} runs is finished."
        for strategy in in_order(tried["strategy"])
        if strategy not in finished
    ]
