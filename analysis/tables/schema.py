"""The columns of comparison.csv, and values of a frame as plain Python values."""

from typing import Any

import numpy as np
import pandas as pd

# The columns of comparison.csv and report.json. Accuracies and shares are fractions in [0, 1].
COLUMNS = {
    "arm": "what is compared: the strategy, with every field that the sweep varies and does not tune",
    "strategy": "what trains, and when",
    "recipe": "the fields that distinguish this recipe from the others of its arm",
    "lr": "the head's learning rate",
    "chosen": "whether val chose this recipe for its arm",
    "runs": "finished runs of the arm, all recipes",
    "recipes": "recipes of the arm with a finished run",
    "n": "finished runs of this recipe, one per seed and fold; every mean but those of test is over these",
    "n_tested": "of these, the runs that test means are over: in a race, those that did not choose the recipe",
    "seeds": "different seeds among these",
    "over": "what these runs differ in, such as 3 seeds or 3 seeds × 5 folds",
    "val_accuracy_mean": "val accuracy at each run's best epoch, mean over the runs; this chooses recipe and arm",
    "test_accuracy_mean": "test accuracy, mean over the runs",
    "test_accuracy_sd": "standard deviation of test accuracy over the runs; empty for one run",
    "test_accuracy_min": "test accuracy of the worst run",
    "test_accuracy_max": "test accuracy of the best run",
    "test_accuracy_iqm": "interquartile mean of test accuracy over the runs; empty below 4 runs",
    "test_accuracy_low": "lower end of the 95% interval of that mean",
    "test_accuracy_high": "upper end of that interval",
    "interval": "crossed: for new runs and images; folds: between folds; Wilson: for new images only; empty: none",
    "difference": "test_accuracy_mean minus that of the candidate, the arm with the highest mean val accuracy",
    "difference_low": "lower end of its 95% interval, paired by image where predictions are there",
    "difference_high": "upper end of that interval",
    "difference_p": "p-value that it is 0, after Holm's correction for the number of arms",
    "test_pictures": "images that the runs were tested on, each counted once",
    "macro_f1_mean": "mean over classes of F1 on test, mean over the runs",
    "balanced_accuracy_mean": "mean over classes of recall on test, mean over the runs",
    "lowest_recall": "the lowest recall of a class on test; a class's recall is its mean over the runs",
    "lowest_recall_class": "the class that has it",
    "wall_seconds_mean": "a run from its start to its end, mean over the runs",
    "train_seconds_mean": "training time of a run, val included, mean over the runs",
    "cache_seconds_mean": "of these, for filling caches that other runs use too: the run that comes first pays for all",
    "images_per_second_mean": "training images a second of loading and computing, mean over the runs",
    "peak_memory_mb": "most memory of a run's process in MB, or of its GPU; the largest of the runs",
    "energy_joules_mean": "energy of training, mean over the runs; empty where it was not measured",
    "epochs_mean": "epochs trained, mean over the runs",
    "target_accuracy": "the val accuracy of the next two columns",
    "epochs_to_target_median": "epochs until val accuracy reached it, median over the runs; empty if most never did",
    "seeds_reaching_target": "runs that reached it",
    "forward_gflops": "forward pass of one image through all blocks, from a counter",
    "backward_gflops": "backward pass of one image through the trainable blocks, from a counter, mean over epochs",
    "train_gflops_mean": "training cost of a run by that counter, mean over the runs",
    "computed_gflops_mean": "of these, without frozen blocks whose activations came from a cache",
    "compute_saved": "counted share of training FLOPs saved against training every block from the first epoch on",
    "compute_saved_with_cache": "the same, the frozen blocks counted only where they were computed",
    "time_saved": "measured share of training seconds saved against the recipe chosen for full; empty without one",
    "time_saved_min": "the same for the slowest run against full's fastest",
    "time_saved_max": "the same for the fastest run against full's slowest",
    "trainable_parameters": "parameters that train in the last epoch, head included",
    "total_parameters": "all parameters, head included",
    "weights_license": "license that the pretrained weights are published under; empty where it is not known",
    "frozen_block_share": "share of the backbone's blocks frozen, mean over epochs",
    "frozen_parameter_share": "share of the backbone's parameters frozen, mean over epochs",
    "frozen_flop_share": "share of the backbone's forward FLOPs in frozen blocks, mean over epochs",
}


def plain_value(value: Any) -> Any:
    """Return a value of a frame as a plain Python value, None where there is none."""
    if value is None or (isinstance(value, float | np.floating) and not np.isfinite(value)) or value is pd.NA:
        return None
    return value.item() if isinstance(value, np.generic) else value
