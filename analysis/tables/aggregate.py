"""What the runs of one recipe say together: means, spread, costs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.sources.test_sets import TestImages
from analysis.stats.tests import interquartile_mean, mean, sd, wilson_over_seeds
from analysis.tables import replicates
from analysis.tables.per_class import lowest, mean_recalls

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


def epochs_to_target(finished: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.Series:
    """Return for each finished run the epochs until val accuracy reached `target`, infinity where it never did."""
    if target == 0.8:  # the run itself has said so
        return finished["epochs_to_80"].fillna(np.inf)
    reached = epochs[epochs["val/accuracy"] >= target].groupby("run")["epoch"].min()
    return finished["run"].map(reached).astype(float).fillna(np.inf)


def test_set_size(runs: pd.DataFrame, tested: Mapping[str, TestImages]) -> int | None:
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


def aggregate_runs(runs: pd.DataFrame, reached: pd.Series, pictures: int | None) -> dict[str, Any]:
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
        "over": replicates.replicate_label(runs),
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
