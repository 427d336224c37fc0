"""Calibration before and after temperature scaling, and the confusion table, from a run's predictions."""

import math
from pathlib import Path

import numpy as np
import pytest

from analysis.sources.predictions import read_predictions
from analysis.tables.per_class import confusion_table, perfect_error, reliability
from tests.support.fabricate import fabricate_run


def test_a_report_has_both_errors_and_all_pictures(tmp_path: Path) -> None:
    """30 of 40 right at 90%: 15 points off before, none at the temperature 2; without one, no "after"."""
    answers = [(f"{n}.png", "disc", "disc" if n < 30 else "square", 0.9) for n in range(40)]
    run_dir = fabricate_run(tmp_path, "a", predictions=answers)
    calibration = reliability(run_dir, 2.0)
    bins = calibration.bins
    assert calibration.errors == {"before": pytest.approx(0.15), "after": pytest.approx(0, abs=1e-6)}
    assert bins.groupby("which")["images"].sum().to_dict() == {"before": 40, "after": 40}
    assert bins["confidence"].tolist() == pytest.approx([0.9, math.sqrt(9) / (1 + math.sqrt(9))])
    assert set(reliability(run_dir, None).errors) == {"before"}


def test_a_perfect_network_shows_an_error_that_shrinks_with_images() -> None:
    """One bin: the mean of |right / n - 0.8| is about 0.8 times its standard error, sqrt(0.16 / n)."""
    errors = [perfect_error(np.full(images, 0.8), draws=2000) for images in (100, 400)]
    assert errors == pytest.approx([0.8 * (0.16 / images) ** 0.5 for images in (100, 400)], rel=0.05)


def test_confusion_counts_truth_by_row(tmp_path: Path) -> None:
    """10 of the discs taken for squares; classes in the data's order; one that nobody named has a column of zeros."""
    answers = [(f"{n}.png", "disc", "disc" if n < 30 else "square", 0.9) for n in range(40)]
    answers += [("s.png", "stripes", "square", 0.5)]
    predictions = read_predictions(fabricate_run(tmp_path, "a", predictions=answers))
    table = confusion_table(predictions, ["stripes", "square", "disc"])
    assert list(table.index) == list(table.columns) == ["stripes", "square", "disc"]
    assert table.to_numpy().tolist() == [[0, 1, 0], [0, 0, 0], [0, 10, 30]]
