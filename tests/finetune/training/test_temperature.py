"""Confidences: the error of calibration and the temperature, against answers worked out on paper."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.sources.predictions import read_predictions
from analysis.tables.per_class import confusion, reliability
from finetune.training.metrics import MAX_TEMPERATURE, calibration_error, fit_temperature, scale_log_probabilities
from tests.support.fabricate import fabricate_run


def two_classes(confidence: float, right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of pictures that are all named class 0 with this confidence, and their labels."""
    scores = np.log(np.array([[confidence, 1 - confidence]] * (right + wrong)))
    return scores, np.array([0] * right + [1] * wrong)


def test_too_sure_by_half() -> None:
    """Always 90% sure, right 3 times of 4: odds of 9 are to become odds of 3, so the temperature is log 9 / log 3."""
    scores, labels = two_classes(0.9, 30, 10)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(2, abs=1e-3)
    assert calibration_error(scores, labels) == pytest.approx(0.15)
    assert calibration_error(scale_log_probabilities(scores, found), labels) == pytest.approx(0, abs=1e-3)


def test_bins_are_weighed_by_their_pictures() -> None:
    """Ten pictures 10 points off and thirty 25 points off: 0.1 * 1/4 + 0.25 * 3/4."""
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
    told = scale_log_probabilities(scores, t)
    assert np.array_equal(told.argmax(axis=1), scores.argmax(axis=1))
    assert np.exp(told).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_report_has_both_errors_and_all_pictures(tmp_path: Path) -> None:
    """30 of 40 right at 90%: 15 points off before, none at the temperature 2; without one, no "after"."""
    answers = [(f"{n}.png", "disc", "disc" if n < 30 else "square", 0.9) for n in range(40)]
    run_dir = fabricate_run(tmp_path, "a", predictions=answers)
    bins, errors = reliability(run_dir, 2.0)
    assert errors == {"before": pytest.approx(0.15), "after": pytest.approx(0, abs=1e-6)}
    assert bins.groupby("which")["pictures"].sum().to_dict() == {"before": 40, "after": 40}
    assert bins["confidence"].tolist() == pytest.approx([0.9, math.sqrt(9) / (1 + math.sqrt(9))])
    assert set(reliability(run_dir, None)[1]) == {"before"}


def test_confusion_counts_truth_by_row(tmp_path: Path) -> None:
    """10 of the discs taken for squares; classes in the data's order; one that nobody named has a column of zeros."""
    answers = [(f"{n}.png", "disc", "disc" if n < 30 else "square", 0.9) for n in range(40)]
    answers += [("s.png", "stripes", "square", 0.5)]
    predictions = read_predictions(fabricate_run(tmp_path, "a", predictions=answers))
    table = confusion(predictions, ["stripes", "square", "disc"])
    assert list(table.index) == list(table.columns) == ["stripes", "square", "disc"]
    assert table.to_numpy().tolist() == [[0, 1, 0], [0, 0, 0], [0, 10, 30]]
