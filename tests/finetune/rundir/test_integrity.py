"""Damaged files of a run directory: detected, renamed, reported and rebuilt; never a traceback."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from analysis.__main__ import main as analyse
from finetune import __main__ as command
from finetune import predict
from finetune.errors import DivergedError, RunInterrupted, TrainingError
from finetune.resolve import resolve, run_id
from finetune.run import preflight
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, integrity, keys
from finetune.system import documents
from tests import ROOT
from tests.support import offline
from tests.support.faults import FAULTS, flip
from tests.support.logs import each_log_line
from tests.support.small_runs import KILLED_FIELDS as FIELDS
from tests.support.small_runs import Killed, after, assert_same_run, flags, leave_killed, small

FILES = (
    *(keys.LAST, keys.PREVIOUS, keys.BEST, keys.HISTORY, keys.SUMMARY, keys.STATE, keys.CONFIG),
    *(keys.SPLITS, keys.PREDICTIONS, keys.THUMBNAILS, keys.SUMS, "claim-1.json"),
)


def names_in(folder: Path) -> list[str]:
    return [name for name in FILES if (folder / name).is_file()]


class Damage(NamedTuple):
    """A kind of damage to a file, at a place drawn by the seed."""

    name: str
    kind: str
    seed: int


def check_one(base: Path, whole: Path, pictures: Path, damage: Damage, read_output: Callable[[], str]) -> None:
    """Damage one file of a copy of `base`, give the command again, and compare with the clean run."""
    name, kind, seed = damage
    folder = base.parent / "trials" / f"{base.name}-{name}-{kind}-{seed}"
    shutil.copytree(base, folder)
    before = (folder / name).read_bytes()
    FAULTS[kind](folder / name, random.Random(f"{name} {kind} {seed}"))
    if (folder / name).read_bytes() == before:  # zeros that were zeros
        return
    if name.startswith("claim"):  # until then its owner counts as alive
        os.utime(folder / name, (time.time() - 200, time.time() - 200))
    if name == keys.BEST or (kind == "flip" and seed <= 1):
        assert predict.main([str(folder), str(pictures / "test" / "red")]) == (2 if name == keys.BEST else 0)
        assert ("best.pt: can't be read as a checkpoint" in read_output()) == (name == keys.BEST)
    assert command.main([*flags(pictures, **FIELDS), "--run-dir", str(folder)]) == 0, read_output()
    output = read_output()
    assert "Traceback" not in output
    checkpoints = (keys.BEST,) if (base / keys.SUMMARY).exists() else (keys.BEST, keys.LAST)
    assert_same_run(whole, folder, checkpoints)
    assert integrity.damaged_files(folder) == []
    quarantined = list(folder.glob(f"{name}.damaged-*"))
    assert all(path.name in output for path in quarantined)
    if name in (keys.LAST, keys.BEST) and len(checkpoints) == 2:
        assert len(quarantined) == 1
    shutil.rmtree(folder)


@pytest.mark.parametrize("finished", [False, True], ids=["killed", "finished"])
def test_after_any_damage_the_same_command_ends_with_the_same_results(
    finished: bool, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file of the directory with a bit flipped at a place drawn by a seed, others cut short."""
    sweep(finished, pictures, tmp_path, capsys, [("flip", 0), ("truncate", 0)])


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True], ids=["killed", "finished"])
def test_after_any_damage_at_many_places_the_results_are_the_same(
    finished: bool, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same with more kinds and places."""
    trials = [(kind, seed) for kind in FAULTS for seed in range(1, 2 if kind == "empty" else 4)]
    sweep(finished, pictures, tmp_path, capsys, trials)


def sweep(
    finished: bool, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], trials: list[tuple[str, int]]
) -> None:
    whole = tmp_path / "whole"
    run(small(pictures, **FIELDS), whole)
    base = whole
    if not finished:
        base = tmp_path / "killed"
        leave_killed(pictures, base)
    for name in names_in(base):
        for kind, seed in trials:
            check_one(base, whole, pictures, Damage(name, kind, seed), lambda: "".join(capsys.readouterr()))


def test_the_log_says_what_is_damaged_and_what_it_goes_on_from(pictures: Path, tmp_path: Path) -> None:
    """One line each: the last checkpoint, then both, then the best."""
    leave_killed(pictures, tmp_path / "killed")
    for names, expected in [
        ((keys.LAST,), "renamed to last.pt.damaged-1; continues from previous.pt"),
        ((keys.LAST, keys.PREVIOUS), "renamed to previous.pt.damaged-1; starts again"),
        ((keys.BEST,), "best.pt is rebuilt from "),
    ]:
        folder, lines = tmp_path / "-".join(names), []  # type: ignore[var-annotated]
        shutil.copytree(tmp_path / "killed", folder)
        for name in names:
            flip(folder / name, random.Random(1))
        with each_log_line(lines.append):
            run(small(pictures, **FIELDS), folder)
        assert [line for line in lines if expected in line], lines
        assert len([line for line in lines if ".damaged-" in line]) == len(names)
        resumed = {keys.LAST: 1, keys.BEST: 2}.get(names[0]) if len(names) == 1 else None
        assert [line for line in lines if line.startswith("resumes")] == (
            [f"resumes after epoch {resumed}"] if resumed else []
        )
        assert not (folder / keys.PREVIOUS).exists()


def test_a_best_checkpoint_that_nothing_can_replace_costs_the_training_and_no_result(
    pictures: Path, tmp_path: Path
) -> None:
    """Where neither of the other two is of the epoch that val chose, the run begins anew."""
    run(small(pictures, **FIELDS), tmp_path / "whole")
    best = (documents.read_json(tmp_path / "whole" / keys.SUMMARY) or {})["best/epoch"]
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    flip(tmp_path / "run" / keys.BEST, random.Random(0))
    lines: list[str] = []
    with each_log_line(lines.append):
        run(small(pictures, **FIELDS), tmp_path / "run")
    assert [line for line in lines if "starts again" in line or "rebuilt from last.pt" in line]
    assert [line for line in lines if "starts again" in line] or best == 3
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_best_checkpoint_that_is_damaged_while_the_run_goes_on_fails_it_once(pictures: Path, tmp_path: Path) -> None:
    """With a message; the next attempt is the same run."""
    run(small(pictures, **FIELDS), tmp_path / "whole")

    def damage(progress: dict[str, Any]) -> None:
        if progress["phase"] == "test":
            flip(tmp_path / "run" / keys.BEST, random.Random(3))

    with pytest.raises(TrainingError, match=r"best\.pt: can't be read .*; the same command rebuilds it"):
        run(small(pictures, **FIELDS), tmp_path / "run", on_progress=damage)
    run(small(pictures, **FIELDS), tmp_path / "run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_killed_between_the_two_checkpoints_of_an_epoch_the_best_one_is_made_from_the_last(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test is never of another epoch's weights."""
    from finetune.run import checkpoint, run_writer

    run(small(pictures, **FIELDS), tmp_path / "whole")
    true_save = checkpoint.save_checkpoint

    def save(path: Path, *args: Any, **options: Any) -> None:
        if path.name == keys.BEST:
            raise Killed
        true_save(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run_writer, "save_checkpoint", save)
        with pytest.raises(Killed):
            run(small(pictures, **FIELDS), tmp_path / "run")
    lines: list[str] = []
    with each_log_line(lines.append):
        run(small(pictures, **FIELDS), tmp_path / "run")
    assert "best.pt is rebuilt from last.pt" in lines
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_checkpoint_of_another_run_is_refused(pictures: Path, tmp_path: Path) -> None:
    """One that was copied into the directory, say."""
    for seed in (0, 1):
        with pytest.raises(RunInterrupted):
            run(small(pictures, seed=seed), tmp_path / str(seed), interrupted=after(2))
    shutil.copy(tmp_path / "0" / keys.LAST, tmp_path / "1" / keys.LAST)
    with pytest.raises(Exception, match=r"last\.pt is of the run partial-\w+\. Give another --run-dir"):
        run(small(pictures, seed=1), tmp_path / "1")


def test_a_stopped_run_that_is_interrupted_in_its_test_trains_no_further(pictures: Path, tmp_path: Path) -> None:
    """Nor does one that was killed right after the epoch at which it was to stop."""
    for name, asks in (("whole", 10**6), ("cut", 5)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / keys.STOP).touch()
        if name == "cut":
            with pytest.raises(RunInterrupted, match="in the test"):
                run(small(pictures), folder, interrupted=after(asks))
        run(small(pictures), folder)
    assert (documents.read_json(tmp_path / "cut" / keys.SUMMARY) or {})["epochs"] == 1
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    leave_killed(pictures, tmp_path / "killed")
    (tmp_path / "killed" / keys.STOP).touch()
    run(small(pictures, **FIELDS), tmp_path / "killed")
    assert (documents.read_json(tmp_path / "killed" / keys.SUMMARY) or {})["epochs"] == 2


@pytest.mark.slow
def test_the_analysis_leaves_out_a_damaged_run_and_says_which_file(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is damaged, in a finished run or one under way, there is no traceback."""
    folder = tmp_path / "runs"
    for seed in (0, 1, 2):
        run(small(pictures, seed=seed, epochs=1), folder / f"run-{seed}")
    leave_killed(pictures, folder / "killed")
    for place in ("run-1", "killed"):
        for name in names_in(folder / place):
            for kind in ("flip", "truncate", "empty"):
                kept = (folder / place / name).read_bytes()
                FAULTS[kind](folder / place / name, random.Random(f"{name} {kind}"))
                code = read_quickly(folder)
                (folder / place / name).write_bytes(kept)
                assert code == "", (place, name, kind, code)
    flip(folder / "run-1" / keys.PREDICTIONS, random.Random(0))
    assert analyse([str(folder), "--out", str(tmp_path / "report")]) == 0
    assert "Traceback" not in "".join(capsys.readouterr())
    assert "predictions.csv" in (tmp_path / "report" / "report.html").read_text()


def read_quickly(folder: Path) -> str:
    """Return what is wrong with how the sweep is read: a number of a run that was damaged counts, say."""
    from analysis.sources.run_directories import read_sweep

    sweep = read_sweep(folder)
    finished = set(sweep.finished["run"])
    if not {"run-0", "run-2"} <= finished <= {"run-0", "run-1", "run-2"}:
        return f"finished: {finished}"
    left = sweep.left_out
    return "" if left["reason"].str.len().gt(0).all() else "a reason is missing"


@pytest.mark.slow
def test_a_run_that_the_analysis_leaves_out_is_rebuilt_by_the_agent(pictures: Path, tmp_path: Path) -> None:
    """The same sweep again tests its checkpoint again."""
    config = small(pictures, epochs=1, strategy="head", seed=0)
    lines = [f"  {name}: {{value: {value}}}" for name, value in config.model_dump(exclude_unset=True).items()]
    (tmp_path / "one.yaml").write_text("\n".join(["method: grid", "parameters:", *lines, ""]))
    run_dir = tmp_path / "runs" / "one" / run_id(resolve(config), *preflight.fingerprint_inputs(resolve(config)))
    run(config, run_dir)
    before = (run_dir / keys.PREDICTIONS).read_bytes()
    flip(run_dir / keys.PREDICTIONS, random.Random(0))
    done = subprocess.run(
        [sys.executable, str(ROOT / "agent.py"), "one.yaml"],
        cwd=tmp_path, env={**os.environ, **offline.environment(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "predictions.csv is damaged: renamed to predictions.csv.damaged-1" in done.stderr
    assert [path.name for path in files.find_runs(run_dir.parent)] == [run_dir.name]
    assert (run_dir / keys.PREDICTIONS).read_bytes() == before
    assert integrity.damaged_files(run_dir) == []
    assert len(load_checkpoint(run_dir / keys.BEST)["history"]) == 1


def test_a_loss_that_is_lost_reaches_no_checkpoint(pictures: Path, tmp_path: Path) -> None:
    """Interrupted between two looks at the losses, the run fails at once, and keeps the checkpoint before."""
    config = small(pictures, strategy="scratch", lr=10.0, warmup_epochs=0, batch_size=4)
    steps: list[float] = []

    def count(progress: dict[str, Any]) -> None:
        if progress["phase"] == "train":
            steps.append(progress["epoch"])

    with pytest.raises(DivergedError, match=r"at step \d of epoch 1|not finite in epoch 1"):
        run(config, tmp_path / "run", on_progress=count, interrupted=lambda: len(steps) == 5)
    assert len(steps) == 5
    assert not (tmp_path / "run" / keys.LAST).exists()
