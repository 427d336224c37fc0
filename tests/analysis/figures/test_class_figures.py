"""Figures of classes, confidences, settings and schedules, compared by structure: artists, labels, legends."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures import accuracy, calibration, classes, curves, schedule, settings
from analysis.figures.classes import MAX_CLASSES
from analysis.figures.style import colour
from analysis.stats.pareto import pareto_front
from analysis.tables.target import times_to_target
from tests.support.fabricate import fabricate_run, read_arms


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def texts(ax: Axes) -> list[str]:
    """Return what is written inside the axes."""
    return [text.get_text() for text in ax.texts]


def ticks(ax: Axes, which: str) -> list[str]:
    """Return the labels of an axis."""
    return [label.get_text() for label in (ax.get_xticklabels() if which == "x" else ax.get_yticklabels())]


def test_a_confusion_matrix_writes_every_number_once(ax: Axes) -> None:
    """Rows are true classes, shaded by the share of the row; nothing is written for none; the diagonal is bold."""
    names = ["disc", "square"]
    table = pd.DataFrame([[8, 2], [0, 10]], index=names, columns=names)
    classes.confusion_matrix(table, ax)
    assert sorted(texts(ax)) == ["10", "2", "8"]
    assert {text.get_text() for text in ax.texts if text.get_fontweight() == "bold"} == {"8", "10"}
    assert ticks(ax, "y") == ticks(ax, "x") == names
    shades = np.asarray(ax.images[0].get_array())
    assert shades.tolist() == [[0.8, 0.2], [0, 1]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_many_classes_show_those_that_fare_worst(ax: Axes) -> None:
    """Of 30 classes the 20 with the lowest recall, in the data's order; the title says so."""
    names = [f"class {number:02}" for number in range(30)]
    table = pd.DataFrame(np.diag(range(1, 31)), index=names, columns=names)
    table.iloc[:, 0] += [0] + [1] * 29  # the classes with fewer images lose the larger share
    classes.confusion_matrix(table, ax)
    assert len(ticks(ax, "y")) == MAX_CLASSES
    assert ticks(ax, "y") == names[1 : MAX_CLASSES + 1]
    assert "20 classes with the lowest recall" in ax.get_title(loc="left") + ax.get_title()


def test_recall_by_class_has_a_row_a_class_and_a_mark_a_strategy(ax: Axes) -> None:
    """The class with most images is on top; strategies stand side by side and in the legend."""
    rows = [
        ("head", "disc", 0.5, 10),
        ("full", "disc", 0.9, 10),
        ("head", "square", 0.7, 40),
        ("full", "square", 0.8, 40),
    ]
    classes.recall_by_class(pd.DataFrame(rows, columns=["arm", "class", "recall", "support"]), ax)
    assert ticks(ax, "y") == ["square (n=40)", "disc (n=10)"]
    marks = [item for item in ax.collections if isinstance(item, PathCollection)]
    assert [np.asarray(mark.get_offsets())[:, 0].tolist() for mark in marks] == [[0.7, 0.5], [0.8, 0.9]]
    assert [text.get_text() for text in ax.get_figure().legends[0].get_texts()] == ["head", "full"]


def test_a_reliability_diagram_tells_before_from_after_by_more_than_colour(ax: Axes) -> None:
    """A diagonal, a line and marks each, with the error in the legend; larger marks are more images."""
    bins = pd.DataFrame(
        {
            "which": ["before", "before", "after"],
            "confidence": [0.6, 0.9, 0.75],
            "accuracy": [0.5, 0.75, 0.75],
            "images": [10, 30, 40],
        }
    )
    calibration.reliability_diagram(bins, {"before": 0.125, "after": 0.0}, ax)
    assert ax.get_legend() is None  # it is outside of the plot, where it hides no point
    (legend,) = ax.get_figure().legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "before temperature scaling: error 12.5 points",
        "after temperature scaling: error 0.0 points",
    ]
    before, after = (item for item in ax.collections if isinstance(item, PathCollection))
    assert before.get_sizes()[0] < before.get_sizes()[1] < after.get_sizes()[0]
    assert len({line.get_linestyle() for line in ax.lines}) == 3


def test_a_schedule_is_a_band_a_strategy_coloured_as_far_as_it_trains(ax: Axes, tmp_path: Path) -> None:
    """Gradual over 6 epochs: the coloured heights are those of the history; shares are written where they change."""
    fabricate_run(tmp_path, "g", strategy="gradual", epochs=6)
    fabricate_run(tmp_path, "h", strategy="head", epochs=6)
    sweep = read_arms(tmp_path)
    schedule.schedule_diagram(sweep.finished, sweep.epochs, ax)
    assert ticks(ax, "y") == ["head", "gradual"]
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == 2 * 2 * 6
    trains = {round(box.get_x()): box.get_height() for box in boxes[1::2] if box.get_y() == 1}
    shares = sweep.epochs.query("run == 'g'").set_index("epoch")["trainable_share"]
    tallest = max(trains.values())
    assert [height / tallest for height in trains.values()] == pytest.approx(list(shares / shares.max()))
    assert {"0%", "100%"} <= set(texts(ax))


def test_times_to_target_keep_the_runs_that_never_arrive(ax: Axes, tmp_path: Path) -> None:
    """A step line a strategy that ends at its share; a cross where runs gave up."""
    for seed, best in enumerate((0.9, 0.9, 0.3)):
        fabricate_run(tmp_path, f"h{seed}", strategy="head", seed=seed, curve=[0.2, best], epochs=2)
        fabricate_run(tmp_path, f"f{seed}", strategy="full", seed=seed, curve=[0.9, 0.9], epochs=2)
    sweep = read_arms(tmp_path)
    curves.time_to_target(times_to_target(sweep.finished, sweep.epochs, 0.8), 0.8, ax)
    lines = {line.get_label(): line for line in ax.lines if not str(line.get_label()).startswith("_")}
    assert set(lines) == {"head", "full"}
    assert np.asarray(lines["head"].get_ydata())[-1] == pytest.approx(2 / 3, abs=0.02)
    assert np.asarray(lines["full"].get_ydata())[-1] == pytest.approx(1, abs=0.02)
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    assert [line.get_color() for line in crosses] == [colour("head")]


def test_importance_has_a_bar_a_setting_and_chance_in_grey(ax: Axes) -> None:
    """The most important on top, its range as a line."""
    table = pd.DataFrame(
        {"field": ["lr", "seed"], "points": [0.08, 0.002], "low": [0.06, -0.001], "high": [0.1, 0.005]}
    )
    settings.importance_bars(table, ax)
    bars = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert ticks(ax, "y") == ["seed (chance)", "lr"]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.2, 8])
    assert bars[0].get_facecolor() != bars[1].get_facecolor()


def test_the_front_has_what_nothing_beats(ax: Axes, tmp_path: Path) -> None:
    """b is dearer than a and worse, d as dear as c and worse; the front is drawn and named in the legend."""
    points = pd.DataFrame({"cost": [1, 2, 3, 3], "score": [0.5, 0.4, 0.9, 0.8]}, index=list("abcd"))
    assert pareto_front(points) == ["a", "c"]
    assert pareto_front(points.iloc[::-1]) == ["a", "c"]
    for strategy, test, seconds in (("head", 0.6, 10), ("partial", 0.8, 60), ("full", 0.7, 120)):
        fabricate_run(tmp_path, strategy, strategy=strategy, test=test, seconds=seconds)
    finished = read_arms(tmp_path).finished
    accuracy.accuracy_against_time(finished, finished, ax)
    front = next(line for line in ax.lines if line.get_label() == "Pareto front")
    assert np.asarray(front.get_ydata()).tolist() == [0.6, 0.8]
    assert ax.get_xscale() == "log"
