"""Accuracies on different images do not compare: such runs meet in one table on request alone."""

import csv
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.errors import InputError
from analysis.pipeline import analyze_sweep
from analysis.report.html import report_page
from analysis.report.json_document import json_document
from analysis.sources.run_directories import read_sweep
from analysis.tables.analysis import Analysis
from tests.support.fabricate import fabricate_run


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, tested: str, **more: Any) -> None:
    """Fabricate a run whose 10 test images have this name."""
    answers = [(f"{tested}/{number}.png", "disc", "disc", 0.9) for number in range(10)]
    fabricate_run(Path("runs/sweep"), name, predictions=answers, **more)


def analyze(mix_data: bool = False) -> Analysis:
    """Analyse runs/sweep; write nothing."""
    return analyze_sweep(read_sweep(Path("runs/sweep"), mix_data=mix_data))


def refusal() -> str:
    """Return the message with which runs/sweep is refused."""
    with pytest.raises(InputError) as caught:
        read_sweep(Path("runs/sweep"))
    return str(caught.value)


def test_runs_on_different_data_are_refused_and_told_apart() -> None:
    """Even where they are the same point of a sweep, which would pass for one run done twice."""
    put("head-a", "x", provenance={"data_fingerprint": "aaaa"})
    put("head-b", "x", provenance={"data_fingerprint": "bbbb"}, data="photos/cats")
    message = refusal()
    assert "data aaaa (demo): 1 run: head-a" in message
    assert "data bbbb (cats): 1 run: head-b" in message
    assert "--mix-data" in message


@pytest.mark.usefixtures("blank_figures")
def test_they_are_mixed_on_request_and_the_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """One table over both, with the note in all that is written, and the command that makes it again."""
    for data, test in (("aaaa", 0.9), ("bbbb", 0.5)):
        for seed in (0, 1):
            put(f"head-{data}-{seed}", "x", seed=seed, test=test, provenance={"data_fingerprint": data})
    assert main(["runs/sweep", "--mix-data"]) == 0
    printed = "".join(capsys.readouterr())
    out = Path("reports/sweep")
    (row,) = csv.DictReader((out / "comparison.csv").read_text().splitlines())
    assert (row["n"], row["over"], row["test_pictures"]) == ("4", "2 seeds × 2 data sets", "20")
    assert float(row["test_accuracy_mean"]) == pytest.approx(0.7)
    note = "Mixed (--mix-data)"
    for text in (printed, *((out / name).read_text() for name in ("comparison.md", "report.html", "report.json"))):
        assert note in text.replace("\\-", "-")
    assert "python -m analysis runs/sweep --mix-data" in (out / "report.html").read_text()


def test_the_flag_changes_nothing_where_there_is_one_data_set() -> None:
    """No note, and no flag in the command."""
    put("head-0", "x")
    analysis = analyze(mix_data=True)
    assert "Mixed" not in " ".join(analysis.notes)
    page = report_page(analysis, json_document(analysis), Path("reports/sweep"), [], [])
    assert "--mix-data" not in page
    assert "python -m analysis runs/sweep" in page


def test_splits_with_other_test_images_are_refused() -> None:
    """Where a folder has classes only, another split_seed tests other images."""
    put("head-0", "x", split_seed=0)
    put("head-1", "y", split_seed=1)
    message = refusal()
    assert "tested on different images" in message
    assert "split_seed 0: 1 run: head-0" in message
    assert "split_seed 1: 1 run: head-1" in message
    (recipe,) = analyze(mix_data=True).comparison.recipes.to_dict("records")
    assert (recipe["n"], recipe["over"], recipe["test_pictures"]) == (2, "2 splits", 20)


def test_groups_with_other_test_images_are_refused() -> None:
    """Images that are kept together make another split, even with the same seed."""
    put("head-0", "x", group_by=None)
    put("head-1", "y", group_by="p[0-9]+")
    message = refusal()
    assert "tested on different images" in message
    assert "group_by p[0-9]+: 1 run: head-1" in message


def test_splits_with_the_same_test_images_repeat_a_recipe() -> None:
    """Where the test split is given, only train and val differ: val must not choose among them."""
    put("head-0", "x", split_seed=0, val=0.9, test=0.6)
    put("head-1", "x", split_seed=1, val=0.7, test=0.8)
    analysis = analyze()
    assert "all were tested on the same images" in " ".join(analysis.notes)
    (recipe,) = analysis.comparison.recipes.to_dict("records")
    assert (recipe["over"], recipe["test_pictures"]) == ("2 splits", 10)
    assert recipe["test_accuracy_mean"] == pytest.approx(0.7)


def test_without_predictions_nothing_is_refused_and_a_note_warns() -> None:
    """The test images are unknown."""
    for seed in (0, 1):
        fabricate_run(Path("runs/sweep"), f"head-{seed}", split_seed=seed)
    assert "may have been tested on different images" in " ".join(analyze().notes)


def test_the_folds_of_a_cross_validation_belong_together() -> None:
    """Different test images by design, of another split too: over all folds each image is tested once."""
    for fold in range(3):
        put(f"head-{fold}", f"part {fold}", folds=3, fold=fold)
    put("head-other", "another part 0", folds=3, fold=0, split_seed=1)
    analysis = analyze()
    assert "different images" not in " ".join(analysis.notes)
    (recipe,) = analysis.comparison.recipes.to_dict("records")
    assert (recipe["over"], recipe["n"]) == ("4 runs of 3 folds × 2 splits", 4)


def test_folds_beside_a_plain_split_are_refused() -> None:
    """One tests all images, the other a part of them."""
    put("head-cv", "x", folds=2, fold=0)
    put("head-plain", "y")
    message = refusal()
    assert "folds: 1 run: head-cv" in message
    assert "split_seed 0: 1 run: head-plain" in message
