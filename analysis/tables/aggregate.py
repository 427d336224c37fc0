"""The runs of one recipe in one row: means, spread, costs."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from analysis.sources.test_sets import TestImages
from analysis.stats.tests import interquartile_mean, standard_deviation
from analysis.tables.per_class import lowest_recall, mean_recalls
from analysis.tables.recipes import replicate_label

# Column of the comparison -> column of the runs of which it is the mean, over the runs that recorded it.
MEANS = {
    "macro_f1_mean": "test/macro_f1",
    "wall_seconds_mean": "wall_seconds",
    "train_seconds_mean": "train_seconds",
    "images_per_second_mean": "images_per_second",
    "epochs_mean": "epochs",
    "forward_gflops": "forward_gflops",
    "backward_gflops": "backward_gflops",
    "train_gflops_mean": "train_gflops",
    "computed_gflops_mean": "computed_gflops",
    "trainable_parameters": "trainable_parameters",
    "total_parameters": "total_parameters",
    "frozen_block_share": "frozen/block_share",
    "frozen_parameter_share": "frozen/parameter_share",
    "frozen_flop_share": "frozen/flop_share",
}
# The same, but missing unless every run recorded it.
COMPLETE_MEANS = {"balanced_accuracy_mean": "test/balanced_accuracy", "energy_joules_mean": "energy_joules"}


def test_set_size(runs: pd.DataFrame, test_images: Mapping[str, TestImages]) -> int | None:
    """Return the number of distinct images that these runs were tested on; None if it is unknown.

    Args:
        test_images: of the sweep; needed with folds, to count the images that several folds share once.
    """
    if len(runs) and set(runs["run"]) <= test_images.keys():
        return len({path for run in runs["run"] for path in test_images[run]})
    column = "provenance/splits/test"
    if column not in runs:
        return None
    counts = pd.to_numeric(runs[column], errors="coerce").dropna()
    # Runs of one split agree. Where they may differ, the smallest number gives the widest interval, the safe one.
    return int(counts.min()) if len(counts) and counts.min() > 0 else None


def aggregate_runs(
    runs: pd.DataFrame, tested: pd.DataFrame, epochs_to_target: pd.Series, images: int | None
) -> dict[str, Any]:
    """Return the values of COLUMNS that are computed from the runs of one recipe.

    Args:
        tested: the runs that test accuracies are taken from, see `tested_runs`.
        epochs_to_target: of each run; infinity where it never reached the target.
        images: that they were tested on, see `test_set_size`.
    """
    accuracies = sorted(tested["test/accuracy"])  # sorted, so that sums do not depend on the order of rows
    deviation = standard_deviation(accuracies)
    median = float(np.median(epochs_to_target))
    recall, recall_class = lowest_recall(mean_recalls(runs)) or (np.nan, None)
    means = runs[list(MEANS.values())].mean()
    licenses = runs.get("provenance/weights_license", pd.Series(dtype=object))
    return {
        "lr": runs["lr"].iloc[0],
        "n": len(runs),
        "seeds": max(runs["seed"].nunique(), 1),
        "over": replicate_label(runs),
        "val_accuracy_mean": fmean(sorted(runs["best/val_accuracy"])),
        "test_accuracy_mean": fmean(accuracies),
        "test_accuracy_sd": np.nan if deviation is None else deviation,
        "test_accuracy_min": accuracies[0],
        "test_accuracy_max": accuracies[-1],
        "test_accuracy_iqm": interquartile_mean(accuracies),
        "n_tested": len(tested),
        "test_pictures": np.nan if images is None else images,
        "lowest_recall": recall,
        "lowest_recall_class": recall_class,
        "train_seconds_min": runs["train_seconds"].min(),
        "train_seconds_max": runs["train_seconds"].max(),
        "cache_seconds_mean": runs["cache_seconds"].fillna(0.0).mean(),
        "peak_memory_mb": runs["peak_memory_mb"].max(),
        "epochs_to_target_median": median if np.isfinite(median) else np.nan,
        "seeds_reaching_target": int(np.isfinite(epochs_to_target).sum()),
        "compute_saved_with_cache": (1 - runs["computed_gflops"] / runs["full_gflops"]).mean(),
        "compute_saved": (1 - runs["train_gflops"] / runs["full_gflops"]).mean(),
        "weights_license": ", ".join(sorted(set(licenses.dropna().astype(str)))) or None,
        **{name: means[column] for name, column in MEANS.items()},
        **{name: runs[column].mean(skipna=False) for name, column in COMPLETE_MEANS.items()},
    }
