"""The comparison table: per strategy the recipe that val chose over seeds, and what test then said of it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis import repeats
from analysis.by_class import lowest, mean_recalls
from analysis.columns import COLUMNS
from analysis.frames import Sweep
from analysis.outcomes import read_outcomes
from analysis.pairs import tested_pairs
from analysis.recipes import choose, in_order, unlike
from analysis.stats import interquartile_mean, mean, sd, wilson_over_seeds
from analysis.tested import Pictures

SEED = 0  # of the bootstrap: the same runs always give the same intervals

# Columns of the runs whose mean over a recipe's runs, as far as these tell, goes into the table.
MEANS = (
    "test/macro_f1",
    "wall_seconds",
    "train_seconds",
    "cache_seconds",
    "images_per_second",
    "epochs",
    "forward_gflops",
    "backward_gflops",
    "train_gflops",
    "computed_gflops",
    "trainable_parameters",
    "total_parameters",
    "frozen/block_share",
    "frozen/parameter_share",
    "frozen/flop_share",
)


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
    chosen, notes = choose(finished, sweep.race)
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
                **_over_runs(runs, reached.loc[runs.index], test_pictures(runs, sweep.tested)),
            }
        )
    recipes = pd.DataFrame(rows)
    _save_time(recipes)
    order = {name: index for index, name in enumerate(in_order(recipes["strategy"]))}
    recipes["order"] = recipes["strategy"].map(order)
    recipes = recipes.sort_values(["order", "lr", "recipe", "key"], ignore_index=True)[["key", *COLUMNS]]
    pairs, faults = _draw_anew(finished, recipes, np.random.default_rng(SEED) if rng is None else rng)
    strategies = recipes[recipes["chosen"]].reset_index(drop=True)
    said = (*notes, *_unfair(strategies), *_of_folds(sweep, strategies), *_missing(sweep), *faults)
    return Comparison(strategies, recipes, target, said, pairs)


def _draw_anew(
    finished: pd.DataFrame, recipes: pd.DataFrame, rng: np.random.Generator
) -> tuple[pd.DataFrame, list[str]]:
    """Put the bootstrap's intervals of chosen recipes into `recipes`; return the pairs, and what keeps some out.

    One run has Wilson's interval: its pictures are all that can be drawn anew. Several have it at least.
    """
    chosen = recipes[recipes["chosen"]]
    runs = finished[finished["recipe"].isin(chosen["key"])]
    outcomes, faults = read_outcomes(runs)
    intervals, pairs = tested_pairs(outcomes, runs, chosen["strategy"].tolist(), rng)
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


def epochs_to_target(finished: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.Series:
    """Return for each finished run the epochs until val accuracy reached `target`, infinity where it never did."""
    if target == 0.8:  # the run itself has said so
        return finished["epochs_to_80"].fillna(np.inf)
    reached = epochs[epochs["val/accuracy"] >= target].groupby("run")["epoch"].min()
    return finished["run"].map(reached).astype(float).fillna(np.inf)


def test_pictures(runs: pd.DataFrame, tested: Mapping[str, Pictures]) -> int | None:
    """Return how many pictures these runs were tested on, those of several runs counted once; None if none tells.

    Args:
        tested: of the sweep. With folds it knows which pictures are the same.
    """
    if len(runs) and set(runs["run"]) <= tested.keys():
        return len({path for run in runs["run"] for path in tested[run]})
    column = "provenance/splits/test"
    if column not in runs:
        return None
    counts = pd.to_numeric(runs[column], errors="coerce").dropna()
    # Runs of one split agree. Where they may differ, the smallest gives the widest, the honest interval.
    return int(counts.min()) if len(counts) and counts.min() > 0 else None


def _over_runs(runs: pd.DataFrame, reached: pd.Series, pictures: int | None) -> dict[str, Any]:
    """Return what the runs of one recipe say together."""
    accuracies = sorted(runs["test/accuracy"])  # sorted, so that sums do not depend on the order of rows
    interval = wilson_over_seeds(accuracies, pictures) if pictures else (np.nan, np.nan)
    deviation = sd(accuracies)
    median = float(np.median(reached))  # a run that never got there counts as later than all others
    worst = lowest(mean_recalls(runs))
    told = runs[list(MEANS)].assign(cache_seconds=runs["cache_seconds"].fillna(0.0)).mean()
    return {
        "lr": runs["lr"].iloc[0],
        "n": len(runs),
        "seeds": max(runs["seed"].nunique(), 1),
        "over": repeats.over(runs),
        "val_accuracy_mean": mean(sorted(runs["best/val_accuracy"])),
        "test_accuracy_mean": mean(accuracies),
        "test_accuracy_sd": np.nan if deviation is None else deviation,
        "test_accuracy_min": accuracies[0],
        "test_accuracy_max": accuracies[-1],
        "test_accuracy_iqm": interquartile_mean(accuracies),
        "test_accuracy_low": interval[0],
        "test_accuracy_high": interval[1],
        "interval": "Wilson" if pictures else "",
        "test_pictures": np.nan if pictures is None else pictures,
        "macro_f1_mean": told["test/macro_f1"],
        "balanced_accuracy_mean": runs["test/balanced_accuracy"].mean(skipna=False),
        "lowest_recall": np.nan if worst is None else worst[0],
        "lowest_recall_class": None if worst is None else worst[1],
        "wall_seconds_mean": told["wall_seconds"],
        "train_seconds_mean": told["train_seconds"],
        "train_seconds_min": runs["train_seconds"].min(),
        "train_seconds_max": runs["train_seconds"].max(),
        "cache_seconds_mean": told["cache_seconds"],
        "images_per_second_mean": told["images_per_second"],
        "peak_memory_mb": runs["peak_memory_mb"].max(),
        "energy_joules_mean": runs["energy_joules"].mean(skipna=False),
        "epochs_mean": told["epochs"],
        "epochs_to_target_median": median if np.isfinite(median) else np.nan,
        "seeds_reaching_target": int(np.isfinite(reached).sum()),
        "forward_gflops": told["forward_gflops"],
        "backward_gflops": told["backward_gflops"],
        "train_gflops_mean": told["train_gflops"],
        "computed_gflops_mean": told["computed_gflops"],
        "compute_saved_with_cache": (1 - runs["computed_gflops"] / runs["full_gflops"]).mean(),
        "compute_saved": (1 - runs["train_gflops"] / runs["full_gflops"]).mean(),
        "trainable_parameters": told["trainable_parameters"],
        "total_parameters": told["total_parameters"],
        "frozen_block_share": told["frozen/block_share"],
        "frozen_parameter_share": told["frozen/parameter_share"],
        "frozen_flop_share": told["frozen/flop_share"],
    }


def _unfair(strategies: pd.DataFrame) -> list[str]:
    """Return a sentence where the chosen recipes differ in more than what a strategy is."""
    differing = unlike(dict(zip(strategies["strategy"], strategies["key"], strict=True)))
    told = [
        f"{name} ({', '.join(f'{strategy} {value}' for strategy, value in values.items())})"
        for name, values in differing.items()
    ]
    return [f"The chosen recipes differ in more than strategy, schedule and rates: {'; '.join(told)}."] if told else []


def _of_folds(sweep: Sweep, strategies: pd.DataFrame) -> list[str]:
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


def _missing(sweep: Sweep) -> list[str]:
    """Return a sentence for each strategy that was tried and has no finished run."""
    tried, finished = sweep.runs.dropna(subset=["strategy"]), set(sweep.finished["strategy"])
    return [
        f"{strategy} is not in the table: none of its {(tried['strategy'] == strategy).sum()} runs is finished."
        for strategy in in_order(tried["strategy"])
        if strategy not in finished
    ]
