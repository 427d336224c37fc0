"""Accuracies on different images do not compare: such runs meet in one table on request alone."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.support.fabricate import fabricate_run

pytestmark = pytest.mark.usefixtures("without_drawing")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, tested: str, **more: Any) -> None:
    """Fabricate a run whose 10 test images have this name."""
    answers = [(f"{tested}/{number}.png", "disc", "disc", 0.9) for number in range(10)]
    fabricate_run(Path("runs/sweep"), name, predictions=answers, **more)


def analyse(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return exit code and all that `python -m analysis runs/sweep` says."""
    code = main(["runs/sweep", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_runs_on_different_data_are_refused_and_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Even where they are the same point of a sweep, which would pass for one run done twice."""
    put("head-a", "x", provenance={"data_fingerprint": "aaaa"})
    put("head-b", "x", provenance={"data_fingerprint": "bbbb"}, data="photos/cats")
    code, said = analyse(capsys)
    assert code == 2
    assert "data aaaa (demo): 1 run: head-a" in said
    assert "data bbbb (cats): 1 run: head-b" in said
    assert "--mix-data" in said
    assert not Path("reports").exists()


def test_they_are_mixed_on_request_and_the_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """One table over both, with the note in all that is written, and the command that makes it again."""
    for data, test in (("aaaa", 0.9), ("bbbb", 0.5)):
        for seed in (0, 1):
            put(f"head-{data}-{seed}", "x", seed=seed, test=test, provenance={"data_fingerprint": data})
    code, said = analyse(capsys, "--mix-data")
    assert code == 0, said
    out = Path("reports/sweep")
    (row,) = csv.DictReader((out / "comparison.csv").read_text().splitlines())
    assert (row["n"], row["over"], row["test_pictures"]) == ("4", "2 seeds × 2 data sets", "20")
    assert float(row["test_accuracy_mean"]) == pytest.approx(0.7)
    note = "Mixed (--mix-data)"
    for text in (said, *((out / name).read_text() for name in ("comparison.md", "report.html", "report.json"))):
        assert note in text.replace("\\-", "-")
    assert "python -m analysis runs/sweep --mix-data" in (out / "report.html").read_text()


def test_the_flag_changes_nothing_where_there_is_one_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    """No note, and no flag in the command."""
    put("head-0", "x")
    code, said = analyse(capsys, "--mix-data")
    assert (code, "Mixed" in said) == (0, False)
    assert "--mix-data" not in (Path("reports/sweep") / "report.html").read_text()


def test_splits_with_other_test_pictures_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a folder has classes only, another split_seed tests other images."""
    put("head-0", "x", split_seed=0)
    put("head-1", "y", split_seed=1)
    code, said = analyse(capsys)
    assert code == 2
    assert "tested on different images" in said
    assert "split_seed 0: 1 run: head-0" in said
    assert "split_seed 1: 1 run: head-1" in said
    code, said = analyse(capsys, "--mix-data")
    assert code == 0
    (recipe,) = json.loads(Path("reports/sweep/report.json").read_text())["recipes"]
    assert (recipe["n"], recipe["over"], recipe["test_pictures"]) == (2, "2 splits", 20)


def test_splits_with_the_same_test_pictures_repeat_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the test split is given, only train and val differ: val must not choose among them."""
    put("head-0", "x", split_seed=0, val=0.9, test=0.6)
    put("head-1", "x", split_seed=1, val=0.7, test=0.8)
    code, said = analyse(capsys)
    assert code == 0, said
    assert "all were tested on the same images" in said
    (recipe,) = json.loads(Path("reports/sweep/report.json").read_text())["recipes"]
    assert (recipe["over"], recipe["test_pictures"]) == ("2 splits", 10)
    assert recipe["test_accuracy_mean"] == pytest.approx(0.7)


def test_without_predictions_nothing_is_refused_and_the_doubt_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What was tested can't be told."""
    for seed in (0, 1):
        fabricate_run(Path("runs/sweep"), f"head-{seed}", split_seed=seed)
    code, said = analyse(capsys)
    assert code == 0, said
    assert "may have been tested on different images" in said


def test_the_folds_of_a_cross_validation_belong_together(capsys: pytest.CaptureFixture[str]) -> None:
    """Different test images by design, of another split too: over all folds each image is tested once."""
    for fold in range(3):
        put(f"head-{fold}", f"part {fold}", folds=3, fold=fold)
    put("head-other", "another part 0", folds=3, fold=0, split_seed=1)
    code, said = analyse(capsys)
    assert code == 0, said
    assert "different images" not in said
    (recipe,) = json.loads(Path("reports/sweep/report.json").read_text())["recipes"]
    assert (recipe["over"], recipe["n"]) == ("4 runs of 3 folds × 2 splits", 4)


def test_folds_beside_a_plain_split_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One tests all images, the other a part of them."""
    put("head-cv", "x", folds=2, fold=0)
    put("head-plain", "y")
    code, said = analyse(capsys)
    assert code == 2
    assert "folds: 1 run: head-cv" in said
    assert "split_seed 0: 1 run: head-plain" in said
