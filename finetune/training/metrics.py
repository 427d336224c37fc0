"""Accuracy, cross-entropy, per-class scores, calibration error and temperature of log-probabilities.

Plain numpy: `analysis` imports this module, so it must load neither torch nor pandas.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
BINS = 15  # of confidence, equally wide: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599
MAX_TEMPERATURE = 20.0  # and 1 / MAX_TEMPERATURE is the minimum; values beyond mean that val is too small


def fit_temperature(log_probabilities: Floats, labels: Ints) -> float:
    """Return the temperature that minimises the cross-entropy of val when logits are divided by it (Guo et al., 4.2).

    It changes no prediction. Returns 1.0 for no images, and the end of the range if all predictions are correct, as
    sharper is then always better.

    Args:
        log_probabilities: (N, classes), of val: test must not decide it.
        labels: (N,).
    """
    if not len(labels):
        return 1.0
    scores, rows = log_probabilities.astype(np.float64), np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = scores / math.exp(log_t)
        top = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((total - scaled[rows, labels]).mean())

    # Convex in 1 / temperature, so it has a single minimum in log(temperature).
    bound = math.log(MAX_TEMPERATURE)
    return math.exp(float(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x))


def scale_log_probabilities(log_probabilities: Floats, t: float) -> Floats:
    """Return the log-probabilities (N, classes) at temperature `t`."""
    scores = log_probabilities.astype(np.float64) / t
    top = scores.max(axis=1, keepdims=True)
    result: Floats = (scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))).astype(np.float32)
    return result


def calibration_error(log_probabilities: Floats, labels: Ints) -> float:
    """Return the expected calibration error in [0, 1]: the mean over images of |confidence - accuracy| of their bin.

    Images are binned by confidence into BINS equal widths (Guo et al., section 2). With few images per bin it is above
    0 even for a perfectly calibrated network.
    """
    confidence = np.exp(log_probabilities.max(axis=1).astype(np.float64))
    correct = log_probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def accuracy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the share of images whose likeliest class is their label."""
    return float((log_probabilities.argmax(axis=1) == labels).mean())


def cross_entropy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the mean negative log-probability of the labels."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


class PerClassScores(NamedTuple):
    """Recall and F1 of each class; float64 (classes,), NaN for a class without images.

    By scikit-learn's definitions, without its import, which takes a second: most of the first epoch of a run that
    trains on cached features.
    """

    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def per_class_scores(log_probabilities: Floats, labels: Ints) -> PerClassScores:
    """Return recall and F1 of each class; their means over classes weight rare and common classes alike."""
    classes = log_probabilities.shape[1]
    predictions = log_probabilities.argmax(axis=1)
    correct = np.bincount(labels[predictions == labels], minlength=classes)
    predicted, actual = np.bincount(predictions, minlength=classes), np.bincount(labels, minlength=classes)
    actual_or_nan = np.where(actual > 0, actual, np.nan)
    return PerClassScores(recall=correct / actual_or_nan, f1=2 * correct / (actual_or_nan + predicted))
