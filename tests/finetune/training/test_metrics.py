"""Per-class scores against scikit-learn's; calibration error and temperature against values worked out on paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from finetune.training.metrics import (
    MAX_TEMPERATURE,
    calibration_error,
    fit_temperature,
    per_class_scores,
    scale_log_probabilities,
)

PREDICTIONS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(PREDICTIONS)
def test_recall_and_f1_are_scikit_learns(predictions: list[tuple[int, int]]) -> None:
    """For each class with an image, whatever was predicted; NaN for the others."""
    labels, predicted = np.array(predictions).T
    scores = np.log(np.full((len(predictions), 5), 0.1, dtype=np.float32))
    scores[np.arange(len(predictions)), predicted] = math.log(0.6)
    scores_by_class = per_class_scores(scores, labels)
    present = np.unique(labels)
    for found, score in ((scores_by_class.recall, recall_score), (scores_by_class.f1, f1_score)):
        expected = score(labels, predicted, labels=present, average=None, zero_division=0)
        assert found[present] == pytest.approx(expected, abs=1e-12)
        assert np.isnan(np.delete(found, present)).all()
    macro = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert np.nanmean(scores_by_class.f1) == pytest.approx(macro, abs=1e-12)


def two_classes(confidence: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of images that are all predicted as class 0 with this confidence, and their labels."""
    scores = np.log(np.array([[confidence, 1 - confidence]] * (right + wrong)))
    return scores, np.array([0] * right + [1] * wrong)


def test_too_sure_by_half() -> None:
    """Always 90% sure, right 3 times of 4: odds of 9 are to become odds of 3, so the temperature is log 9 / log 3."""
    scores, labels = two_classes(0.9, 30, 10)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(2, abs=1e-3)
    assert calibration_error(scores, labels) == pytest.approx(0.15)
    assert calibration_error(scale_log_probabilities(scores, found), labels) == pytest.approx(0, abs=1e-3)


def test_bins_are_weighted_by_their_images() -> None:
    """Ten images 10 points off and thirty 25 points off: 0.1 * 1/4 + 0.25 * 3/4."""
    first, second = two_classes(0.6, 5, 5), two_classes(0.85, 18, 12)
    scores, labels = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    assert calibration_error(scores, labels) == pytest.approx(0.1 / 4 + 0.25 * 3 / 4)


def test_a_val_that_can_not_tell_stays_in_bounds() -> None:
    """All right: sharper is always better, up to the end of the range; nothing to fit on: 1."""
    assert fit_temperature(*two_classes(0.6, 20, 0)) == pytest.approx(1 / MAX_TEMPERATURE, rel=1e-2)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1.0


@given(st.floats(0.05, 20), st.integers(0, 2**16))
def test_a_temperature_changes_no_prediction(t: float, seed: int) -> None:
    """And what it gives are probabilities."""
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), 20))
    scaled = scale_log_probabilities(scores, t)
    assert np.array_equal(scaled.argmax(axis=1), scores.argmax(axis=1))
    assert np.exp(scaled).sum(axis=1) == pytest.approx(1, abs=1e-5)
