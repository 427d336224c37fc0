"""Every sweep file that ships is valid, can be expanded, and says truly how many runs it has."""

import re
from pathlib import Path

import pytest

from finetune.config import Config
from finetune.sweep import search, sweep_file
from finetune.sweep.plan import make_plan
from tests import ROOT
from tests.support.agent_processes import identify

SWEEPS = ROOT / "sweeps"
FILES = sorted(SWEEPS.glob("*.yaml"))


def test_all_of_them_are_tested() -> None:
    """And `sweeps/` is no package, or it would hide W&B's. The claims in its folder are no sweeps."""
    assert len(FILES) == 10
    assert not list(SWEEPS.rglob("__init__.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_sweep_file_is_valid_and_has_the_runs_it_says(file: Path) -> None:
    """It opens with question, number of runs, cost and command; every point is a config; no two are the same run."""
    text = file.read_text()
    header = text[: text.index("\nprogram: agent.py\n")]
    assert header.startswith("description: ")
    assert "\n# Cost: " in header
    assert f"\n#   python agent.py sweeps/{file.name}" in header
    sweep = sweep_file.load(str(file))
    assert search.schema_faults(sweep.spec) == []
    assert "?" in sweep.spec["description"]  # W&B keeps it, unlike comments
    assert sweep.spec["metric"] == {"name": "best/val_accuracy", "goal": "maximize"}
    plan = make_plan(sweep, None, identify)
    told = re.search(r"^# Runs: (\d+)", header, re.MULTILINE)
    assert told is not None
    assert len(plan.runs) == int(told[1])
    assert plan.collapsed == []
    assert all(isinstance(run.config, Config) for run in plan.runs)
