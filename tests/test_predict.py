"""Predicting with a finished run: the run's own names, sizes and orientation."""

import csv
from pathlib import Path

import pytest

from finetune import record
from finetune.predict import main
from finetune.run import run
from tests.test_run import quiet, small


@pytest.fixture
def finished(pictures: Path, tmp_path: Path) -> Path:
    """Return the directory of a run that can tell the colours apart."""
    run(small(pictures, strategy="scratch", backbone="resnet18", epochs=6, lr=1e-3), tmp_path / "run", log=quiet)
    return tmp_path / "run"


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_predictions_are_those_of_the_run(
    finished: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test pictures get the class and confidence that the run itself wrote down, from folder and file alike."""
    monkeypatch.chdir(tmp_path)
    lone = pictures / "train" / "red" / "000.png"
    out = tmp_path / "out.csv"
    assert main([str(finished), str(pictures / "test"), str(lone), "--csv", str(out)]) == 0
    rows = read(out)
    assert list(rows[0]) == ["path", "prediction", "confidence"]
    assert rows[-1]["path"] == str(lone)
    expected = {str(pictures / row["path"]): row for row in read(finished / record.PREDICTIONS)}
    assert len(rows) == len(expected) + 1
    for row in rows[:-1]:
        own = expected[row["path"]]
        assert row["prediction"] == own["prediction"]
        assert float(row["confidence"]) == pytest.approx(float(own[f"probability/{own['prediction']}"]), abs=1e-3)
    assert main([str(finished / record.BEST), str(lone), "--csv", str(out)]) == 0


def test_unreadable_pictures_are_named_and_skipped(
    finished: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are predicted; the exit code says that something is missing."""
    (tmp_path / "bad.jpg").write_text("no picture")
    assert main([str(finished), str(tmp_path / "bad.jpg"), str(pictures / "test" / "red")]) == 1
    said = capsys.readouterr()
    assert "bad.jpg" in said.err
    assert len(said.out.splitlines()) == 1 + 4


def test_bad_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, no pictures, no such file: exit code 2 and a message."""
    (tmp_path / "empty").mkdir()
    for arguments in ([str(tmp_path / "empty"), str(tmp_path)], [str(tmp_path), "nowhere.jpg"]):
        assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
