"""Recommendations by number of training images, where a sweep was run on parts of them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.figures import data_size
from analysis.figures.specs import FIGURES
from analysis.pipeline import analyze_sweep
from analysis.report.csv_files import write_tables
from analysis.report.html import report_page
from analysis.report.json_document import json_document
from analysis.report.sentences import data_size_record
from analysis.tables.comparison import compare
from analysis.tables.data_size import compare_data_sizes, data_size_frame, split_by_train_share
from analysis.tables.verdict import MARGIN
from tests.support.fabricate import fabricate_run, read_arms

WRONG = {(0.1, "head"): 20, (0.1, "full"): 50, (1.0, "head"): 18, (1.0, "full"): 5}  # of 100 test images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a sweep in which head wins with 30 training images, full with 300."""
    for (share, strategy), wrong in WRONG.items():
        answers = [(f"{n}.png", "disc", "square" if n < wrong else "disc", 0.9) for n in range(100)]
        for seed in range(3):
            fabricate_run(
                tmp_path / "sweep", f"{strategy}-{share}-{seed}", strategy=strategy, seed=seed, train_share=share,
                val=1 - wrong / 100, test=1 - wrong / 100, predictions=answers,
                provenance={"splits": {"train": round(300 * share), "val": 60, "test": 100}},
            )  # fmt: skip
    return tmp_path / "sweep"


def test_each_size_has_its_own_answer(folder: Path) -> None:
    """The smallest first; the tables are of the largest alone, whose numbers no smaller part changes."""
    sweep = read_arms(folder)
    whole, parts = split_by_train_share(sweep)
    comparison = compare(whole)
    assert len(whole.finished) == 6
    assert set(whole.finished["train_share"]) == {1.0}
    assert "6 runs on fewer training images" in whole.notes[-1]
    few, many = map(data_size_record, compare_data_sizes(parts, whole, comparison, MARGIN))
    assert (few["pictures"], few["use"], few["accuracy"], few["verdict"]) == (30, "head", "80.0%", "distinguishable")
    assert (many["pictures"], many["use"], many["accuracy"], many["verdict"]) == (
        300,
        "full",
        "95.0%",
        "distinguishable",
    )


def test_a_sweep_of_one_size_has_no_such_table(folder: Path) -> None:
    """Runs of earlier versions, which had no such field, trained on all images."""
    for run_dir in folder.glob("*-0.1-*"):
        run_dir.rename(folder.parent / run_dir.name)
    sweep = read_arms(folder)
    sweep.runs["train_share"] = np.nan
    whole, parts = split_by_train_share(sweep)
    assert whole is sweep
    assert compare_data_sizes(parts, whole, compare(whole), MARGIN) == []


def test_the_figure_has_a_line_a_strategy(folder: Path) -> None:
    """Over the numbers of images, with intervals that hold the means."""
    whole, parts = split_by_train_share(read_arms(folder))
    data = data_size_frame(compare_data_sizes(parts, whole, compare(whole), MARGIN))
    assert ((data["low"] <= data["accuracy"]) & (data["accuracy"] <= data["high"])).all()
    ax = data_size.accuracy_by_size(data, Figure().add_subplot())
    assert [line.get_label() for line in ax.lines] == ["head", "full"]
    heights = [np.asarray(line.get_ydata()) for line in ax.lines]
    assert np.array(heights) == pytest.approx(np.array([[0.8, 0.82], [0.5, 0.95]]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["30", "300"]


def test_the_report_has_a_row_and_a_figure_by_size(folder: Path) -> None:
    """And report.json; runs.csv has all runs."""
    analysis, out = analyze_sweep(read_arms(folder)), folder.parent
    document = json_document(analysis)
    assert [(size["pictures"], size["use"]) for size in document["card"]["by_size"]] == [(30, "head"), (300, "full")]
    assert document["answer"]["best"] == "full"
    assert '<h2 id="by-size">By training-set size</h2>' in report_page(analysis, document, out, [], [])
    assert FIGURES["accuracy_by_size"](analysis) is not None
    write_tables(analysis, out)
    assert len((out / "runs.csv").read_text().splitlines()) == 13
