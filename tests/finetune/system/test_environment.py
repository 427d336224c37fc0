"""The cores that a process may use, and the environment of its children."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.system import environment
from finetune.system.environment import ROOT, child_environment, cores


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({}, 8),
        ({"": "max 100000"}, 8),
        ({"": "200000 100000"}, 2),
        ({"job/step": "150000 100000", "job": "400000 100000"}, 2),  # of 1.5 cores, two threads make the most
        ({"job/step": "max 100000", "job": "50000 100000"}, 1),
        ({"other": "100000 100000"}, 8),
    ],
)
def test_a_quota_limits_the_cores(
    limits: dict[str, str], quota: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the process's own control group and of those around it, as containers and batch systems set them."""
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(f"{limit}\n")
    (tmp_path / "membership").write_text("3:cpuset:/\n0::/job/step\n")
    monkeypatch.setattr(environment, "CGROUPS", tmp_path)
    measured = environment._cpu_quota
    monkeypatch.setattr(environment, "_cpu_quota", lambda _: measured(tmp_path / "membership"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores() == quota


def test_a_system_without_control_groups_has_all_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never none."""
    assert environment._cpu_quota(tmp_path / "nothing") == float("inf")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert cores() == 1


def test_a_child_finds_the_project_from_anywhere(tmp_path: Path) -> None:
    """Before what PYTHONPATH named already."""
    variables = child_environment(OMP_NUM_THREADS="3", CUDA_VISIBLE_DEVICES=None)
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(ROOT), *os.environ["PYTHONPATH"].split(os.pathsep)]
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
    subprocess.run([sys.executable, "-c", "import finetune.errors"], cwd=tmp_path, env=variables, check=True)
