"""What `make` passes on: names unchanged, each in one piece, none run as a command. Nothing is installed here."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import ROOT

MAKEFILE = ROOT / "Makefile"
# Stands in for Python: answers the check that it starts, and else writes its arguments to a file, one a line.
PYTHON = """#!/bin/bash
[ "$1" = -c ] && { echo 1; exit; }
printf '%s\\n' "$@" > words
"""
ODD = ["a b.yaml", "$(touch x).yaml", "`touch x`.yaml", "$(shell touch x).yaml", "a;touch x", "a'b.yaml", 'a"b.yaml',
       "$HOME.yaml", "$$.yaml", "a#b.yaml", "*.yaml", "$(SHELL).yaml", "a\\b.yaml"]  # fmt: skip
LINES = {
    "agents": ["agent.py", "SWEEP"],
    "data": ["agent.py", "SWEEP", "--fetch"],
    "analysis": ["-m", "analysis", "SWEEP"],
    "publish": ["-m", "finetune.publish", "SWEEP"],
    "report": ["-m", "analysis.wandb_report", "SWEEP"],
    "sweep": ["-m", "wandb", "sweep", "SWEEP"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the files that the Makefile looks for, and a stand-in for Python."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "sweeps").mkdir()
    for name in ("requirements.lock", "scripts/find-python.sh", "sweeps/strategies.yaml"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "ready").touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in the folder, without the variables of a make that runs these tests, such as `make test ARGS=-x`."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "SWEEP", "AGENTS", "BUDGET")
    kept = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        ["make", "-f", str(MAKEFILE), "PYTHON=./python", "READY=ready", *words],
        cwd=folder, env={**kept, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def arguments_of(folder: Path, *words: str, **environment: str) -> list[str]:
    """Return the arguments that Python is started with, and check that nothing else happened in the folder."""
    before = {path for path in folder.rglob("*") if path.name != "words"}
    done = make(folder, *words, **environment)
    assert done.returncode == 0, done.stderr
    assert {path for path in folder.rglob("*") if path.name != "words"} == before
    return (folder / "words").read_text().splitlines()


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_passed_on_unchanged(folder: Path, name: str) -> None:
    """Whatever it means to the shell or to make itself, on the command line and in the environment."""
    (folder / name).touch()
    expected = ["agent.py", name, "--agents", name]
    assert arguments_of(folder, "agents", f"SWEEP={name}", f"AGENTS={name}") == expected
    assert arguments_of(folder, "agents", SWEEP=name, AGENTS=name) == expected
    assert arguments_of(folder, "gc", f"BUDGET={name}") == ["-m", "finetune.gc", "--budget", name]


@pytest.mark.parametrize("target", LINES)
def test_every_target_takes_one_sweep_or_none(folder: Path, target: str) -> None:
    """A name with a space and a command in it; a path; none, for which `make sweep` has a default."""
    odd = "$(touch x) y.yaml"
    (folder / odd).touch()
    for name in [odd, "sweeps/strategies.yaml"]:
        words = [name if word == "SWEEP" else word for word in LINES[target]]
        assert arguments_of(folder, target, f"SWEEP={name}") == words
    default = ["sweeps/strategies.yaml"] if target == "sweep" else []
    bare = [given for word in LINES[target] for given in (default if word == "SWEEP" else [word])]
    assert arguments_of(folder, target) == arguments_of(folder, target, "SWEEP=") == bare


def test_further_arguments_are_words_of_the_shell(folder: Path) -> None:
    """Split where they are not quoted, after the arguments that have a variable of their own."""
    given = ["SWEEP=runs/a", "AGENTS=2", "ARGS=--set lr=[1e-3,3e-3] --set 'data=my images' --plan"]
    words = ["agent.py", "runs/a", "--agents", "2", "--set", "lr=[1e-3,3e-3]", "--set", "data=my images", "--plan"]
    assert arguments_of(folder, "agents", *given) == words
    assert arguments_of(folder, "gc", "ARGS=--dry-run") == ["-m", "finetune.gc", "--dry-run"]


def test_a_missing_sweep_file_is_reported(folder: Path) -> None:
    """By its name, with those that exist; nothing is started."""
    done = make(folder, "sweep", "SWEEP=$(touch x) y.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("$(touch x) y.yaml: no such sweep file. Available: sweeps/strategies.yaml\n")
    assert not (folder / "words").exists()
    assert not (folder / "x").exists()


def test_make_sweep_checks_the_file_first(folder: Path) -> None:
    """Only after a check without errors is W&B's command run."""
    note = 'printf "%s " "$@" >> words; echo >> words'
    for code, lines in ((0, 2), (2, 1)):
        (folder / "words").unlink(missing_ok=True)
        wrong = f'[[ " $* " != *" --check "* ]] || exit {code}'
        (folder / "python").write_text(PYTHON.replace("printf '%s\\n' \"$@\" > words", f"{note}\n{wrong}"))
        done = make(folder, "sweep")
        assert done.returncode == code
        expected = ["agent.py sweeps/strategies.yaml --check ", "-m wandb sweep sweeps/strategies.yaml "]
        assert (folder / "words").read_text().splitlines() == expected[:lines]
