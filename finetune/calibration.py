"""How far confidences can be believed: the error of calibration, and the temperature that mends most of it.

This file loads neither torch nor pandas.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
BINS = 15  # equally wide ones of confidence: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599
MOST = 20.0  # of a temperature, and one over the least; beyond these val was too small to tell


def temperature(log_probabilities: Floats, labels: Ints) -> float:
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
    bound = math.log(MOST)
    return math.exp(float(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-4}).x))


def scaled(log_probabilities: Floats, t: float) -> Floats:
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
