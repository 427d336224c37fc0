"""The parts of a run's process that can be looked at without starting one; test_offline.py starts them."""

from pathlib import Path

import pytest

from finetune import record
from finetune.agents import early_stop, workers
from finetune.agents.plan import Plan, PlannedRun
from finetune.agents.sweepfile import Sweep
from finetune.config import parse_config, resolve


def test_slots_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the environment allows; with one or none there is nothing to choose."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    assert [workers._gpu_of(slot) for slot in range(4)] == ["0", "2", "3", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert workers._gpu_of(1) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers._gpu_of(0) is None


def test_the_last_line_of_a_log_is_the_reason(tmp_path: Path) -> None:
    """Empty lines at its end are passed over."""
    log = tmp_path / "log.txt"
    assert workers._last_line(log) == "no word in its log"
    log.write_text("first\nValueError: x\n\n")
    assert workers._last_line(log) == "ValueError: x"


@pytest.mark.parametrize(
    ("schedule", "epochs", "stops"),
    [
        ([[0, 0.5]], 4, True),
        ([[0, 0.5], [4, 1]], 4, False),
        ([[0, 0.5], [4, 1]], 5, True),
        ([[0, 0.5]], 10, False),  # over anyway
    ],
)
def test_hyperband_stops_laggards_but_never_before_the_last_unfreeze(
    tmp_path: Path, schedule: list[list[float]], epochs: int, stops: bool
) -> None:
    """Beside three finished runs at 0.9, a run at 0.1 is told to stop, once its schedule has reached its last step."""
    spec = {
        "metric": {"name": "best/val_accuracy", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    }
    todo = Plan(Sweep(tmp_path, tmp_path, spec, ""), lambda _: ("", ""))
    for name, value, rows in [("a", 0.9, 10), ("b", 0.9, 10), ("c", 0.9, 10), ("slow", 0.1, epochs)]:
        config = resolve(parse_config({"strategy": "gradual", "unfreeze": schedule, "epochs": 10}, "here"))
        todo.runs.append(PlannedRun(name, config, config, {}, tmp_path / name, ""))
        (tmp_path / name).mkdir()
        record.write_history(tmp_path / name, [{"epoch": 1 + row, "val/accuracy": value} for row in range(rows)])
        if name != "slow":
            record.write_json(tmp_path / name / record.SUMMARY, {"best/val_accuracy": value})
    seen: dict[str, int] = {}
    assert early_stop.is_due(todo, todo.runs[-1], seen)
    assert not early_stop.is_due(todo, todo.runs[-1], seen)
    early_stop.consider(todo, todo.runs[-1])
    assert (tmp_path / "slow" / record.STOP).exists() == stops
