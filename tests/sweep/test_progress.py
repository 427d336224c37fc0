"""What is shown while runs go on."""

from pathlib import Path

import pytest
import yaml

from finetune.sweep import display, progress, sweep_file
from finetune.sweep.plan import SweepPlan, make_plan
from finetune.sweep.progress import seconds_left
from tests.support.agent_processes import identify


@pytest.fixture
def todo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """Two runs of four epochs."""
    monkeypatch.chdir(tmp_path)
    parameters = {"seed": {"values": [0, 1]}, "epochs": {"value": 4}, "strategy": {"value": "head"}}
    Path("my.yaml").write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}))
    return make_plan(sweep_file.load("my.yaml"), None, identify)


def test_the_time_left_is_what_the_epochs_of_each_strategy_took() -> None:
    """Two epochs at 10 s and one of an unknown strategy at the mean of 15 s, in two slots."""
    assert seconds_left([("full", 2.0), ("new", 1.0)], {"full": 10.0, "other": 20.0}, 2) == pytest.approx(17.5)
    assert seconds_left([("full", 2.0)], {}, 2) is None


def test_bars_follow_the_runs(todo: SweepPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar a slot with epoch and val accuracy, one for the sweep with the share that is done and the time left."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    bars = progress.RunReporter(todo, slots=1, pending=2)
    run = todo.runs[0]
    bars.started(0, run)
    bars.progressed(0, run, {})
    bars.progressed(0, run, {"phase": "train", "epoch": 0.0, "epochs": 4, "val_accuracy": None})
    bars.progressed(0, run, {"phase": "val", "epoch": 2.5, "epochs": 4, "val_accuracy": 0.5})
    total, slot = bars.bars.tasks
    assert slot.description == f"[1/2] {run.id} seed 0"
    assert slot.fields["note"] == "epoch 3/4, val 50.0%"
    assert slot.completed == pytest.approx(2.5 / 4)
    assert total.description == "runs/my: run 1 of 2"
    assert total.completed == pytest.approx(2.5 / 8)
    assert total.fields["note"].startswith("about ")
    bars.progressed(0, run, {"phase": "cache", "epoch": 3, "epochs": 4, "val_accuracy": None, "share": 0.255})
    assert slot.fields["note"] == "filling the cache 26%"
    bars.progressed(0, run, {"phase": "cache", "epoch": 3, "epochs": 4, "val_accuracy": None, "share": None})
    assert slot.fields["note"] == "filling the cache"
    bars.progressed(0, run, {"phase": "test", "epoch": 4, "epochs": 4, "val_accuracy": 0.5})
    assert slot.fields["note"] == "testing, val 50.0%"
    bars.ended(0, run, "finished", "")
    assert len(bars.bars.tasks) == 1


def test_the_plan_is_shown_with_what_varies(todo: SweepPlan, capsys: pytest.CaptureFixture[str]) -> None:
    """The field that varies is a column; the counts close the table."""
    display.show_plan(todo)
    shown = capsys.readouterr().out
    assert "seed" in shown
    assert "epochs" not in shown
    assert shown.endswith("2 runs: 2 to do\n")


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (270, "4.5 min"), (569, "9.5 min"), (2460, "41 min"), (12_600, "3.5 h")]
)
def test_times_are_told_in_two_digits_or_so(seconds: float, words: str) -> None:
    """In the unit that fits."""
    assert display.duration(seconds) == words
