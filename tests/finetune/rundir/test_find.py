"""Which network is meant: by path, by sweep, by the word best."""

import os
from pathlib import Path

import pytest

from finetune.errors import UserError
from finetune.rundir import keys
from finetune.rundir.find import find_checkpoint
from finetune.system import documents
from tests.support.fabricate import fabricate_run
from tests.support.logs import each_log_line


def with_checkpoint(folder: Path, name: str, val: float, **more: object) -> Path:
    """Write a run with a file where its checkpoint would be."""
    run_dir = fabricate_run(folder, name, val=val, **more)  # type: ignore[arg-type]
    (run_dir / keys.BEST).write_bytes(b"a checkpoint")
    return run_dir


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a sweep of three finished runs and a failed one, below the runs/ of the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, val in (("low", 0.5), ("high", 0.9), ("middle", 0.7)):
        with_checkpoint(Path("runs/one"), name, val, seed=round(val * 10))
    fabricate_run(Path("runs/one"), "failed", state="failed")
    return Path("runs/one")


def age(folder: Path, seconds: float) -> None:
    """Make all files of a sweep older."""
    for file in folder.rglob("*"):
        then = file.stat().st_mtime - seconds
        os.utime(file, (then, then))


def test_a_sweep_stands_for_its_best_run_by_val(sweep: Path) -> None:
    """By folder and by word alike; the log has the run and the reason."""
    lines: list[str] = []
    for name in (str(sweep), "best"):
        with each_log_line(lines.append):
            assert find_checkpoint(name) == sweep / "high" / keys.BEST
    assert lines == ["the best run of runs/one is high: of 3 finished runs it has the highest val accuracy, 90.0%"] * 2


def test_equal_val_accuracies_go_to_the_lower_loss_then_the_name(sweep: Path) -> None:
    """As the analysis breaks ties, so that both mean the same run."""
    for name, loss in (("a-equal", 0.6), ("b-better", 0.1)):
        with_checkpoint(sweep, name, 0.9, summary={"best/val_loss": loss})
    assert find_checkpoint(str(sweep)).parent.name == "b-better"


def test_the_report_decides_unless_it_is_older_than_a_run(sweep: Path) -> None:
    """The analysis chose a recipe by its mean over seeds; a report that does not know all runs is passed by."""
    report = Path("reports/one/report.json")
    report.parent.mkdir(parents=True)
    documents.write_json(report, {"best_run": "middle"})
    lines: list[str] = []
    with each_log_line(lines.append):
        assert find_checkpoint("best").parent.name == "middle"
    assert "report.json" in lines[0]
    newest = max(file.stat().st_mtime for file in sweep.rglob("summary.json"))
    os.utime(report, (newest - 10, newest - 10))
    with each_log_line(lines.append):
        assert find_checkpoint("best").parent.name == "high"
    for content in ('{"best_run": "elsewhere"}', "[1]", "{"):
        report.write_text(content)
        with each_log_line(lines.append):
            assert find_checkpoint("best").parent.name == "high"


def test_the_newest_sweep_is_the_one_that_changed_last(sweep: Path) -> None:
    """Not the one that comes last by name."""
    with_checkpoint(Path("runs/another"), "only", 0.2)
    age(Path("runs/another"), 100)
    assert find_checkpoint("best").parent.parent == sweep
    age(sweep, 1000)
    assert find_checkpoint("best").parent.name == "only"


def test_a_run_and_a_file_are_meant_as_they_are_named(sweep: Path) -> None:
    """Nothing is logged about them."""
    lines: list[str] = []
    with each_log_line(lines.append):
        assert find_checkpoint(str(sweep / "low")) == sweep / "low" / keys.BEST
    with each_log_line(lines.append):
        assert find_checkpoint("some/where.pt") == Path("some/where.pt")
    assert lines == []


def test_what_can_not_be_told_is_an_error_that_says_how_to_mend_it(sweep: Path) -> None:
    """No checkpoint, no run finished, sweeps instead of runs, other images: never a worse network in silence."""

    def refused(name: str) -> str:
        with pytest.raises(UserError) as error:
            find_checkpoint(name)
        return str(error.value)

    assert "holds sweeps, not runs. Name one of them: runs/one" in refused("runs")
    (sweep / "high" / keys.BEST).unlink()
    assert "Copy it back" in refused("best")
    documents.write_json(sweep / "high" / "wandb-1.json", {})
    assert "fetched from W&B" in refused("best")
    fabricate_run(Path("runs/failing"), "bad", state="failed")
    assert "no run is finished yet" in refused("runs/failing")
    with_checkpoint(sweep, "other-data", 0.3, provenance={"data_fingerprint": "bbbb"})
    assert "2 different image sets" in refused("runs/one")


def test_without_any_sweep_the_word_best_says_what_to_do(tmp_path: Path) -> None:
    """No traceback where runs/ is not there."""
    with pytest.raises(UserError, match="make demo"):
        find_checkpoint("best", runs=tmp_path / "runs")
