"""What `make` hands on: names as they are, in one piece each, none of them a command. Nothing is installed here."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import ROOT

MAKEFILE = ROOT / "Makefile"
# Stands in for Python: says that it starts, and else notes its words, one a line.
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
def place(tmp_path: Path) -> Path:
    """Return a folder that has what the Makefile looks for, ready, with a stand-in for Python."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "sweeps").mkdir()
    for name in ("requirements.lock", "scripts/find-python.sh", "sweeps/strategies.yaml"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "ready").touch()
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def make(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make in the folder, without what a make that runs these tests hands on: `make test ARGS=-x`."""
    handed = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "SWEEP", "AGENTS", "BUDGET")
    kept = {name: value for name, value in os.environ.items() if name not in handed}
    return subprocess.run(
        ["make", "-f", str(MAKEFILE), "PYTHON=./python", "READY=ready", *words],
        cwd=place, env={**kept, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def handed_on(place: Path, *words: str, **environment: str) -> list[str]:
    """Return the words that Python is started with, after which nothing else has happened in the folder."""
    before = {path for path in place.rglob("*") if path.name != "words"}
    done = make(place, *words, **environment)
    assert done.returncode == 0, done.stderr
    assert {path for path in place.rglob("*") if path.name != "words"} == before
    return (place / "words").read_text().splitlines()


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_handed_on_as_it_is(place: Path, name: str) -> None:
    """Whatever the shell, or make itself, would make of it, on the command line and in the environment."""
    (place / name).touch()
    assert handed_on(place, "agents", f"SWEEP={name}") == ["agent.py", name]
    assert handed_on(place, "agents", SWEEP=name) == ["agent.py", name]
    assert handed_on(place, "gc", f"BUDGET={name}") == ["-m", "finetune.gc", "--budget", name]
    assert handed_on(place, "agents", f"AGENTS={name}") == ["agent.py", "--agents", name]


@pytest.mark.parametrize("target", LINES)
def test_every_target_takes_one_sweep_or_none(place: Path, target: str) -> None:
    """One with a space, a command in its name; a folder; none, where `make sweep` has its own."""
    odd = "$(touch x) y.yaml"
    (place / odd).touch()
    for name in [odd, "sweeps/strategies.yaml"]:
        words = [name if word == "SWEEP" else word for word in LINES[target]]
        assert handed_on(place, target, f"SWEEP={name}") == words
    default = ["sweeps/strategies.yaml"] if target == "sweep" else []
    bare = [given for word in LINES[target] for given in (default if word == "SWEEP" else [word])]
    assert handed_on(place, target) == handed_on(place, target, "SWEEP=") == bare


def test_further_arguments_are_words_for_the_shell(place: Path) -> None:
    """Split where they are not quoted, behind what has a name of its own."""
    given = ["SWEEP=runs/a", "AGENTS=2", "ARGS=--set lr=[1e-3,3e-3] --set 'data=my pictures' --plan"]
    words = ["agent.py", "runs/a", "--agents", "2", "--set", "lr=[1e-3,3e-3]", "--set", "data=my pictures", "--plan"]
    assert handed_on(place, "agents", *given) == words
    assert handed_on(place, "gc", "ARGS=--dry-run") == ["-m", "finetune.gc", "--dry-run"]


def test_a_sweep_file_that_is_not_there_is_told(place: Path) -> None:
    """By its name as it was given, with those that are; nothing is started."""
    done = make(place, "sweep", "SWEEP=$(touch x) y.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("$(touch x) y.yaml: no such sweep file. There: sweeps/strategies.yaml\n")
    assert not (place / "words").exists()
    assert not (place / "x").exists()


def test_make_sweep_makes_none_of_a_file_with_faults(place: Path) -> None:
    """The check comes first, and W&B's command after it alone."""
    note = 'printf "%s " "$@" >> words; echo >> words'
    for code, lines in ((0, 2), (2, 1)):
        (place / "words").unlink(missing_ok=True)
        wrong = f'[[ " $* " != *" --check "* ]] || exit {code}'
        (place / "python").write_text(PYTHON.replace("printf '%s\\n' \"$@\" > words", f"{note}\n{wrong}"))
        done = make(place, "sweep")
        assert done.returncode == code
        expected = ["agent.py sweeps/strategies.yaml --check ", "-m wandb sweep sweeps/strategies.yaml "]
        assert (place / "words").read_text().splitlines() == expected[:lines]
