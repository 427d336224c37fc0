"""Recall by class: from a run's summary to the table and the figure, and blank where a run does not tell."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from analysis import formatting
from analysis.figures import style
from analysis.figures.classes import MAX_CLASSES, height_for, recall_by_class
from analysis.figures.specs import FIGURES
from analysis.pipeline import analyze_sweep
from analysis.report import columns, csv_files
from analysis.sources.sweep import RECALL
from analysis.tables.comparison import compare
from analysis.tables.per_class import lowest_recall, mean_recalls, recall_frame
from tests.support.fabricate import fabricate_run, read_arms

OLD = dict.fromkeys(("test/recall", "test/min_recall", "test/balanced_accuracy", "best/val_macro_f1"))


def test_the_lowest_recall_is_of_the_mean_over_runs(tmp_path: Path) -> None:
    """Each run may have another worst class; a recipe's is the one that is worst over all."""
    for seed, recall in enumerate(({"cat": 0.2, "dog": 0.5, "eel": 0.9}, {"cat": 0.9, "dog": 0.5, "eel": 0.3})):
        told = {RECALL: recall, "test/balanced_accuracy": 0.5 + seed / 5}
        fabricate_run(tmp_path, f"head-{seed}", seed=seed, summary=told)
    comparison = compare(read_arms(tmp_path))
    (row,) = csv_files.records(comparison.arms)
    assert (row["lowest_recall"], row["lowest_recall_class"]) == (0.5, "dog")
    assert row["balanced_accuracy_mean"] == pytest.approx(0.6)
    (column,) = (column for column in columns.detail_columns(0.8) if column.heading == "Worst class recall")
    assert columns.cells(comparison.arms, [column]) == [["50.0% (dog)"]]


def test_classes_that_share_the_lowest_recall_are_counted() -> None:
    """Of many classes with few images, several are never found."""
    assert lowest_recall(pd.Series({"dog": 0.0, "cat": 0.0, "eel": 0.0, "owl": 0.1})) == (0.0, "cat and 2 more")
    assert lowest_recall(pd.Series(dtype=float)) is None


def test_a_class_that_a_fold_does_not_test_has_its_mean_over_the_others() -> None:
    """A rare class may have fewer images than there are folds."""
    runs = pd.DataFrame({RECALL: [{"cat": 0.5, "dog": 1.0}, {"cat": 0.7}]})
    assert mean_recalls(runs).to_dict() == {"cat": pytest.approx(0.6), "dog": 1.0}


def test_a_run_of_an_earlier_version_leaves_a_blank(tmp_path: Path) -> None:
    """It is read, counted, and compared by what it tells; the figure is left out where no strategy has one."""
    fabricate_run(tmp_path / "runs", "head-0", summary=OLD)
    fabricate_run(tmp_path / "runs", "head-1", seed=1)
    analysis = analyze_sweep(read_arms(tmp_path / "runs"))
    comparison = analysis.comparison
    (row,) = csv_files.records(comparison.arms)
    assert (row["n"], row["macro_f1_mean"]) == (2, pytest.approx(0.79))
    assert [row[name] for name in ("lowest_recall", "lowest_recall_class", "balanced_accuracy_mean")] == [None] * 3
    assert FIGURES["recall_by_class"](analysis) is None
    recall = [column for column in columns.detail_columns(0.8) if column.heading == "Worst class recall"]
    assert columns.cells(comparison.arms, recall) == [[formatting.NONE]]


def frame(classes: int) -> pd.DataFrame:
    """Return two strategies on so many classes; class 0 has most images and the lowest recall."""
    return pd.DataFrame(
        {"arm": strategy, "class": f"c{number:03}", "recall": (number + bonus) / 200, "support": classes - number}
        for strategy, bonus in (("head", 0), ("full", 20))
        for number in range(classes)
    )


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def test_the_figure_has_a_row_a_class_and_a_mark_a_strategy(ax: Axes) -> None:
    """Most test images on top, their number beside the name; colours as everywhere; the legend outside."""
    assert recall_by_class(frame(10).sample(frac=1, random_state=0), ax) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"c{number:03} (n={10 - number})" for number in range(10)]
    assert ax.yaxis_inverted()
    assert [points.get_label() for points in ax.collections] == ["head", "full"]
    for points, bonus in zip(ax.collections, (0, 20), strict=True):
        assert [x for x, _ in points.get_offsets()] == pytest.approx([(number + bonus) / 200 for number in range(10)])  # type: ignore[attr-defined]
        assert to_hex(points.get_facecolor()[0]) == style.colour(str(points.get_label())).lower()  # type: ignore[index]
    assert ax.get_title(loc="left") == "" or "of" not in ax.get_title(loc="left")
    figure = ax.get_figure()
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["head", "full"]


def test_of_many_classes_the_figure_shows_the_lowest(ax: Axes) -> None:
    """A hundred names can't be read; the title says what is left out, and the figure keeps to a page."""
    recall_by_class(frame(100), ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"c{number:03} (n={100 - number})" for number in range(MAX_CLASSES)]
    assert ax.get_title() == "Recall by class: the lowest 20 of 100"
    assert height_for(100) == height_for(MAX_CLASSES) > height_for(10) > height_for(2) == style.HEIGHT


def test_support_counts_each_test_picture_once() -> None:
    """Seeds test the same images, folds others; without predictions there is no number."""
    runs = pd.DataFrame({"arm": ["head", "head"], RECALL: [{"cat": 0.5, "dog": 1.0}] * 2})
    one, other = {"a": "cat", "b": "dog"}, {"c": "cat"}
    rows = recall_frame(runs, [one, one, other]).set_index("class")
    assert rows["support"].to_dict() == {"cat": 2, "dog": 1}
    assert rows["recall"].to_dict() == {"cat": 0.5, "dog": 1.0}
    unknown = recall_frame(runs, [{}])
    assert unknown["support"].tolist() == [0, 0]
    ax = recall_by_class(unknown, Figure().add_subplot())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    assert recall_frame(runs.assign(**{RECALL: None}), [one]).empty
