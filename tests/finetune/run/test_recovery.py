"""Recovery from rare events: files that can't be read once, interrupted repairs, stops, other caches."""

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finetune.errors import CorruptFileError, RunInterrupted, UserError
from finetune.resolve import resolve
from finetune.run import checkpoint
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, integrity, keys, stop_request
from finetune.system import checksums, documents
from tests.support.faults import flip
from tests.support.logs import each_log_line
from tests.support.small_runs import KILLED_FIELDS, Killed, after, assert_same_run, kill_after, leave_killed, small


def checkpoint_names(folder: Path) -> set[str]:
    """Return the names of a run's checkpoints, damaged ones included."""
    return {path.name for path in folder.glob("*.pt*")}


@pytest.mark.parametrize(
    ("place", "error"),
    [
        (keys.LAST, OSError(errno.ESTALE, os.strerror(errno.ESTALE))),
        (keys.BEST, OSError(errno.EMFILE, os.strerror(errno.EMFILE))),
    ],
)
def test_a_file_that_can_not_be_read_for_a_moment_is_not_damaged(
    place: str,
    error: OSError,
    images: Path,
    undisturbed: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file server that is away, no file handles left: the run ends with a message, and all its files stay."""
    folder = tmp_path / "run"
    leave_killed(images, folder)
    before, true = checkpoint_names(folder), checksums.zip_fault

    def away(path: Path) -> str | None:
        if path.name == place:
            raise error
        return true(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "zip_fault", away)
        with pytest.raises(UserError, match=rf"{place}: can't be read \({error.strerror}\)"):
            run(small(images, **KILLED_FIELDS), folder)
    assert checkpoint_names(folder) == before
    run(small(images, **KILLED_FIELDS), folder)
    assert_same_run(undisturbed(**KILLED_FIELDS), folder)


def test_want_of_memory_at_loading_is_not_damage(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a foreign file of any kind come through as something else than damage."""
    leave_killed(images, tmp_path / "run")

    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", no_memory)
        with pytest.raises(UserError, match=r"can't be read .*allocate memory") as caught:
            load_checkpoint(tmp_path / "run" / keys.LAST)
    assert not isinstance(caught.value, CorruptFileError)
    whole = load_checkpoint(tmp_path / "run" / keys.LAST)
    for lacking in ({"format": 1}, {**whole, "history": 3}, {**whole, "run_id": None}, [whole]):
        torch.save(lacking, tmp_path / "other.pt")
        with pytest.raises(CorruptFileError, match="no checkpoint of this project"):
            load_checkpoint(tmp_path / "other.pt")


def test_a_finished_run_whose_config_is_torn_gets_it_again(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path
) -> None:
    """Without it nobody would take the directory for a run's."""
    whole = undisturbed(**KILLED_FIELDS)
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / keys.CONFIG).write_text("strategy: [")
    run(small(images, **KILLED_FIELDS), folder)
    assert files.is_run_dir(folder)
    assert integrity.damaged_files(folder) == []
    assert_same_run(whole, folder)


def test_a_repair_that_is_cut_is_made_at_the_next_time(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any of its steps: a finished run is never one that lacks a file."""
    whole = undisturbed(**KILLED_FIELDS)
    true = checksums.quarantine
    for steps in (1, 2):
        folder = tmp_path / str(steps)
        shutil.copytree(whole, folder)
        for name in (keys.PREDICTIONS, keys.HISTORY):
            flip(folder / name, random.Random(1))
        left = [steps]

        def killed(path: Path, left: list[int] = left) -> Path:
            aside = true(path)
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return aside

        with monkeypatch.context() as patch:
            patch.setattr(integrity, "quarantine", killed)
            with pytest.raises(KeyboardInterrupt):
                integrity.quarantine_damaged(folder)
        run(small(images, **KILLED_FIELDS), folder)
        assert integrity.damaged_files(folder) == []
        assert_same_run(whole, folder)


def test_a_part_of_a_disk_that_can_not_be_read_is_damage_of_that_file(
    undisturbed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad sector in a finished run does not stop a sweep; other errors do not count as damage."""
    shutil.copytree(undisturbed(**KILLED_FIELDS), tmp_path / "run")
    true = Path.read_bytes
    number = errno.EIO

    def bad(path: Path) -> bytes:
        if path.name == keys.PREDICTIONS:
            raise OSError(number, os.strerror(number), str(path))
        return true(path)

    monkeypatch.setattr(Path, "read_bytes", bad)
    assert integrity.mismatched_files(tmp_path / "run") == [keys.PREDICTIONS]
    number = errno.ESTALE
    with pytest.raises(OSError, match="Stale"):
        integrity.mismatched_files(tmp_path / "run")


def stop_after(folder: Path, epoch: int) -> Callable[[str], None]:
    """Return a log that has a run stopped once so many epochs are finished, by a file put there during the next."""

    def log(line: str) -> None:
        if line.startswith(f"epoch {epoch}/"):
            (folder / keys.STOP).write_text("hyperband\n")

    return log


def test_a_run_that_was_stopped_early_and_has_to_go_back_ends_where_it_did(images: Path, tmp_path: Path) -> None:
    """With both checkpoints damaged it begins anew, and is not stopped after its first epoch."""
    folder, fields = tmp_path / "run", {"strategy": "head", "epochs": 6}
    with each_log_line(stop_after(folder, 2)):
        run(small(images, **fields), folder)
    before = documents.read_json(folder / keys.SUMMARY) or {}
    assert before["epochs"] == 2
    assert (folder / keys.STOP).read_text() == "hyperband\nended after epoch 2\n"
    whole = shutil.copytree(folder, tmp_path / "whole")
    for name in (keys.LAST, keys.BEST):
        flip(folder / name, random.Random(2))
    run(small(images, **fields), folder)
    assert_same_run(whole, folder)


def test_a_stop_is_not_obeyed_before_the_epoch_that_best_pt_is_of(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as it was to end, the last checkpoint damaged: the one before lacks that epoch, which val chose."""
    folder, fields = tmp_path / "run", {"strategy": "lpft", "epochs": 6, "lr": 0.02}

    def killed(run_dir: Path, epochs: int) -> bool:
        best = load_checkpoint(run_dir / keys.BEST)["history"]
        if epochs > 1 and len(best) == epochs:
            (run_dir / keys.STOP).touch()
            raise Killed
        return False

    with monkeypatch.context() as patch:
        patch.setattr(stop_request, "ends_run", killed)
        with pytest.raises(Killed):
            run(small(images, **fields), folder)
    reached = len(load_checkpoint(folder / keys.LAST)["history"])
    flip(folder / keys.LAST, random.Random(1))
    run(small(images, **fields), folder)
    summary = documents.read_json(folder / keys.SUMMARY) or {}
    assert (summary["epochs"], summary["best/epoch"]) == (reached, reached)


def test_a_second_stop_before_the_epoch_has_gone_on_changes_nothing(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in mid-epoch, gone on with where the caches are empty, and stopped again while they were filled."""
    fields = {"strategy": "partial", "epochs": 2, "dropout": 0.5, "cache": "on", "views": 2, "batch_size": 4}
    folder = tmp_path / "run"
    whole = undisturbed(**fields)
    with pytest.raises(RunInterrupted, match="after step 1"):
        run(small(images, **fields), folder, interrupted=after(1))
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "another"))
    with pytest.raises(RunInterrupted, match=r"decoding|filling"):
        run(small(images, **fields), folder, interrupted=after(1))
    run(small(images, **fields), folder)
    assert_same_run(whole, folder)


def test_what_is_cached_is_decided_once_for_a_run(images: Path, tmp_path: Path) -> None:
    """Its peers being done, a resumed run would keep nothing, and lack the rounding of what it had kept before."""
    fields = {"strategy": "partial", "epochs": 3, "cache": "auto", "views": 4}
    config, *others = (resolve(small(images, **fields, lr=lr)) for lr in (0.003, 0.002))
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run(config, whole, peers=[config, *others])
    rows = files.read_history(whole)[0]
    assert all(row["cached_share"] > 0 for row in rows)

    with pytest.raises(Killed):
        run(config, folder, peers=[config, *others], on_progress=kill_after(1.5))
    shutil.rmtree(os.environ["FINETUNE_CACHE"])  # another machine's, where nothing is cached yet
    run(config, folder, peers=[config])
    assert [row["cached_share"] for row in files.read_history(folder)[0]] == [row["cached_share"] for row in rows]
    assert_same_run(whole, folder)
