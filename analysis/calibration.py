"""How far a run's confidences can be believed on test, as it is and at the temperature that val chose."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.predictions import read_probabilities
from finetune.training.metrics import BINS, calibration_error, scale_log_probabilities


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
