"""How each class fared: what a mean over all pictures hides where classes are of unequal size."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.sources.predictions import read_probabilities
from analysis.sources.sweep import RECALL
from finetune.training.metrics import BINS, calibration_error, scale_log_probabilities


def mean_recalls(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return class -> mean recall over these runs; empty unless all of them tell (earlier versions did not).

    A class without test pictures in a run, such as a rare one in a fold, has its mean over the others.
    """
    told = [recall for recall in runs[RECALL] if isinstance(recall, Mapping)]
    if len(told) < len(runs):
        return pd.Series(dtype=float)
    return pd.DataFrame(told).mean().dropna()


def lowest(recalls: "pd.Series[float]") -> tuple[float, str] | None:
    """Return the lowest recall and its class, the first by name and how many more where several share it."""
    if recalls.empty:
        return None
    names = sorted(recalls.index[recalls == recalls.min()])
    return float(recalls.min()), names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def recall_frame(chosen: pd.DataFrame, pictures: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Return the mean recall of each strategy and class.

    Args:
        chosen: the runs of the chosen recipes.
        pictures: test sets, path -> label; those that several share count once.

    Returns:
        columns strategy, class, recall, and support (test pictures of the class); empty where no strategy tells.
    """
    labels: dict[str, str] = {}
    for some in pictures:
        labels |= some
    support = Counter(labels.values())
    return pd.DataFrame(
        [
            {"strategy": strategy, "class": name, "recall": recall, "support": support[str(name)]}
            for strategy, runs in chosen.groupby("strategy")
            for name, recall in mean_recalls(runs).items()
        ],
        columns=["strategy", "class", "recall", "support"],
    )


def reliability(run_dir: Path, temperature: float | None) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return accuracy by confidence, and the expected calibration errors.

    Args:
        temperature: of the run's summary; None where an earlier version did not tell: then there is no "after".

    Returns:
        one row a bin that is not empty: which (before, after), confidence and accuracy (means), pictures; and which ->
        expected calibration error, a fraction.

    Raises:
        InputError: the run has no predictions, or no probabilities.
    """
    probabilities, classes, labels = read_probabilities(run_dir)
    position = {name: index for index, name in enumerate(classes)}
    truth = np.array([position.get(label, -1) for label in labels])
    scores = np.log(np.maximum(probabilities, 1e-12))
    kinds = {"before": scores} | (
        {} if temperature is None else {"after": scale_log_probabilities(scores, temperature)}
    )
    rows, errors = [], {}
    for which, given in kinds.items():
        errors[which] = calibration_error(given, truth)
        confidence = np.exp(given.max(axis=1).astype(float))
        table = pd.DataFrame({"confidence": confidence, "accuracy": given.argmax(axis=1) == truth})
        table["bin"] = np.minimum((confidence * BINS).astype(int), BINS - 1)
        means = table.groupby("bin").agg(
            confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), pictures=("accuracy", "size")
        )
        rows.append(means.reset_index(drop=True).assign(which=which))
    return pd.concat(rows, ignore_index=True), errors


def confusion(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return how many test pictures of each class (rows) were taken for which (columns), in the data's order."""
    found = pd.crosstab(predictions["label"], predictions["prediction"])
    known = [name for name in classes if name in found.index or name in found.columns]
    names = [*known, *sorted((set(found.index) | set(found.columns)) - set(classes))]
    return found.reindex(index=names, columns=names, fill_value=0)
