"""Recall by class, the confusion matrix, and calibration: what overall accuracy hides."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.sources.predictions import read_probabilities
from analysis.sources.sweep import RECALL
from finetune.training.metrics import BINS, calibration_error, scale_log_probabilities


def mean_recalls(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return class -> mean recall over these runs; empty unless all of them recorded it (earlier versions did not).

    A class without test images in a run, such as a rare one in a fold, has its mean over the other runs.
    """
    recorded = [recall for recall in runs[RECALL] if isinstance(recall, Mapping)]
    if len(recorded) < len(runs):
        return pd.Series(dtype=float)
    return pd.DataFrame(recorded).mean().dropna()


def lowest_recall(recalls: "pd.Series[float]") -> tuple[float, str] | None:
    """Return the lowest recall and its class; where several share it, the first by name and the number of others."""
    if recalls.empty:
        return None
    names = sorted(recalls.index[recalls == recalls.min()])
    return float(recalls.min()), names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def recall_frame(runs: pd.DataFrame, test_sets: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Return the mean recall of each strategy and class.

    Args:
        runs: of the chosen recipes.
        test_sets: path -> label; images that several of them share count once.

    Returns:
        columns strategy, class, recall, and support (test images of the class); empty where no strategy recorded it.
    """
    labels: dict[str, str] = {}
    for test_set in test_sets:
        labels |= test_set
    support = Counter(labels.values())
    return pd.DataFrame(
        [
            {"arm": strategy, "class": name, "recall": recall, "support": support[str(name)]}
            for strategy, group in runs.groupby("arm")
            for name, recall in mean_recalls(group).items()
        ],
        columns=["arm", "class", "recall", "support"],
    )


@dataclass(frozen=True)
class Calibration:
    """How well the confidences of a run fit its accuracy on test, before and after temperature scaling.

    Attributes:
        bins: one row per non-empty bin: which (before, after), confidence and accuracy (means), images.
        errors: which -> expected calibration error, a fraction.
        perfect: the error that a perfectly calibrated network with these confidences (of the last of `errors`) shows on
            so few images, the mean over draws; above 0, as |confidence - accuracy| of a bin is.
    """

    bins: pd.DataFrame
    errors: dict[str, float]
    perfect: float


def reliability(run_dir: Path, temperature: float | None) -> Calibration:
    """Return the calibration of a run on test.

    Args:
        temperature: of the run's summary; None where an earlier version did not record it: then there is no "after".

    Raises:
        InputError: the run has no predictions, or no probabilities.
    """
    probabilities, classes, labels = read_probabilities(run_dir)
    index_of = {name: index for index, name in enumerate(classes)}
    truth = np.array([index_of.get(label, -1) for label in labels])
    scores = {"before": np.log(np.maximum(probabilities, 1e-12))}
    if temperature is not None:
        scores["after"] = scale_log_probabilities(scores["before"], temperature)
    tables, errors = [], {}
    for which, log_probabilities in scores.items():
        errors[which] = calibration_error(log_probabilities, truth)
        confidence = np.exp(log_probabilities.max(axis=1).astype(float))
        table = pd.DataFrame({"confidence": confidence, "accuracy": log_probabilities.argmax(axis=1) == truth})
        table["bin"] = np.minimum((confidence * BINS).astype(int), BINS - 1)
        means = table.groupby("bin").agg(
            confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), images=("accuracy", "size")
        )
        tables.append(means.reset_index(drop=True).assign(which=which))
    return Calibration(pd.concat(tables, ignore_index=True), errors, perfect_error(confidence))


def perfect_error(confidence: NDArray[np.float64], draws: int = 200) -> float:
    """Return the mean expected calibration error of a network whose accuracy is its confidence, over random draws.

    Args:
        confidence: (images,).
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    correct = np.random.default_rng(0).random((draws, len(confidence))) < confidence
    gaps = [np.bincount(bins, weights=drawn - confidence, minlength=BINS) for drawn in correct]
    return float(np.abs(gaps).sum(axis=1).mean() / len(confidence))


def confusion_table(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return the number of test images of each true class (rows) and predicted class (columns), in the data's order."""
    table = pd.crosstab(predictions["label"], predictions["prediction"])
    found = set(table.index) | set(table.columns)
    names = [*(name for name in classes if name in found), *sorted(found - set(classes))]
    return table.reindex(index=names, columns=names, fill_value=0)
