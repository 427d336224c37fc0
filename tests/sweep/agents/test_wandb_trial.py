"""What a run that W&B's agent has handed over knows of the sweep it belongs to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.resolve import resolve, run_id
from finetune.rundir import files, keys
from finetune.sweep.agents import wandb_trial
from finetune.system import documents
from tests.support.agent_processes import CODE, identify


def peers(folder: Path, method: str = "grid", **parameters: Any) -> list[tuple[str, int]] | None:
    """Return strategy and seed of the peers in a sweep that is stored in `folder`."""
    (folder / keys.SWEEP).write_text(yaml.safe_dump({"method": method, "parameters": parameters}))
    found = wandb_trial._unfinished_configs(folder, CODE)
    return None if found is None else sorted((config.strategy, config.seed) for config in found)


GRID = {"data": {"value": "demo"}, "strategy": {"values": ["head", "full"]}, "seed": {"values": [0, 1]}}


def test_the_runs_of_a_grid_are_known(tmp_path: Path) -> None:
    """Resolved, and each one once, however many points of the sweep it is."""
    everything = [("full", 0), ("full", 1), ("head", 0), ("head", 1)]
    assert peers(tmp_path, **GRID) == everything
    assert peers(tmp_path, **GRID, dropout={"values": [0.2, "0.2"]}) == everything
    assert all(config == resolve(config) for config in wandb_trial._unfinished_configs(tmp_path, CODE) or [])


def test_what_this_machine_has_finished_is_left_out(tmp_path: Path) -> None:
    """It needs no cache any more; what has failed may be tried again."""
    assert peers(tmp_path, **GRID)
    first, second, *_ = wandb_trial._unfinished_configs(tmp_path, CODE) or []
    for config in (first, second):
        (tmp_path / run_id(config, *identify(config))).mkdir()
    documents.write_json(tmp_path / run_id(first, *identify(first)) / keys.SUMMARY, {"state": "finished"})
    files.write_state(tmp_path / run_id(second, *identify(second)), "failed", "ValueError: x")
    left = peers(tmp_path, **GRID)
    assert left is not None
    assert len(left) == 3
    assert (first.strategy, first.seed) not in left


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("random", GRID),
        ("bayes", GRID),
        ("grid", {"seed": {"distribution": "q_uniform", "min": 0, "max": 9}}),
        ("grid", {"strategy": {"values": ["head", "partal"]}}),
        ("grid", {"data": {"value": "nowhere"}}),
        ("grid", {"seed": {"values": list(range(2000))}}),
        ("grid", {"seed": 3}),
    ],
)
def test_of_any_other_sweep_nothing_is_known(tmp_path: Path, method: str, parameters: dict[str, Any]) -> None:
    """Searches, grids that only W&B's engine understands, faults, and more runs than are worth a look."""
    assert peers(tmp_path, method, **parameters) is None


@pytest.mark.parametrize("text", [None, "", "[", "method: grid"])
def test_without_a_readable_sweep_file_nothing_is_known(tmp_path: Path, text: str | None) -> None:
    """As with W&B's own agent, which does not tell."""
    if text is not None:
        (tmp_path / keys.SWEEP).write_text(text)
    assert wandb_trial._unfinished_configs(tmp_path, CODE) is None
