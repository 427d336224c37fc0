"""How far confidences can be believed: the error of calibration, and the temperature that mends most of it.

This file loads neither torch nor pandas.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
BINS = 15  # equally wide ones of confidence: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599
MAX_TEMPERATURE = 20.0  # of a temperature, and one over the least; beyond these val was too small to tell


def fit_temperature(log_probabilities: Floats, labels: Ints) -> float:
    """Return what to divide logits by so that val's cross-entropy is the lowest (Guo et al., section 4.2).

    It changes no prediction, as all classes are scaled alike. 1.0 where there is nothing to fit it on. Where every
    picture is named rightly, sharper is always better, and the end of the range is returned.

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

    # Convex in one over the temperature, so it has a single minimum in its logarithm.
    bound = math.log(MAX_TEMPERATURE)
    return math.exp(float(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x))


def scale_log_probabilities(log_probabilities: Floats, t: float) -> Floats:
    """Return the log-probabilities (N, classes) at temperature `t`."""
    scores = log_probabilities.astype(np.float64) / t
    top = scores.max(axis=1, keepdims=True)
    result: Floats = (scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))).astype(np.float32)
    return result


def calibration_error(log_probabilities: Floats, labels: Ints) -> float:
    """Return the expected calibration error in [0, 1]: how far confidence and accuracy lie apart, mean over pictures.

    Pictures are binned by confidence in BINS equal widths (Guo et al., section 2). With few pictures a bin it is above
    0 for a perfect network, too.
    """
    confidence = np.exp(log_probabilities.max(axis=1).astype(np.float64))
    right = log_probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    apart = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(apart).sum() / len(labels))


def accuracy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the share of pictures whose likeliest class is the right one."""
    return float((log_probabilities.argmax(axis=1) == labels).mean())


def cross_entropy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the mean negative log-probability of the right class."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


class PerClassScores(NamedTuple):
    """How each class fared; float64 (classes,), NaN where a class has no picture.

    By scikit-learn's definitions. Counted here, because its import takes a second, which would be most of the first
    epoch of a run that trains on cached features.

    Attributes:
        recall: share of the class's pictures that were named rightly.
        f1: harmonic mean of recall and precision; 0 where none was named rightly.
    """

    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def per_class_scores(log_probabilities: Floats, labels: Ints) -> PerClassScores:
    """Return recall and F1 of each class. Every class counts the same in a mean over these, however rare it is."""
    classes = log_probabilities.shape[1]
    predictions = log_probabilities.argmax(axis=1)
    right = np.bincount(labels[predictions == labels], minlength=classes)
    of_it, named = np.bincount(labels, minlength=classes), np.bincount(predictions, minlength=classes)
    occurs = np.where(of_it > 0, of_it, np.nan)
    return PerClassScores(recall=right / occurs, f1=2 * right / (occurs + named))
