"""A resumed run is the same run, bit for bit: weights, optimizer, history, predictions, whatever it does and when."""

import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest
import torch

from finetune.config import Config
from finetune.errors import RunInterrupted
from finetune.run import checkpoint, run_writer
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import keys
from finetune.system import documents
from tests.support.logs import each_log_line
from tests.support.small_runs import Killed, assert_same_run, kill_after, limit_memory, small

EPOCHS = 4
STRATEGIES = ("head", "partial", "gradual", "lpft", "full", "scratch")
LOADER_WORKERS = [(0, 0), (0, 2), (2, 1), (1, 0)]  # before and after a disturbance, in turn
SHUFFLENET = "shufflenet_v2_x0_5"  # with batch-norm


class Case(NamedTuple):
    """A run and its disturbances.

    Attributes:
        disturbances: (finished epochs, "killed" or "interrupted"), in the second step or so of the next epoch; each
            disturbs a run of its own.
        max_images: number of images that fit into memory, None for all.
    """

    fields: dict[str, Any]
    disturbances: list[tuple[int, str]]
    max_images: int | None = None


EVERY_EPOCH = [(epoch, how) for how in ("killed", "interrupted") for epoch in range(EPOCHS)]
TWO = [(0, "killed"), (1, "interrupted")]
OPTIONS: dict[str, dict[str, Any]] = {
    "growing images": {"strategy": "full", "image_px": 48, "start_px": 24},
    "mixing": {"strategy": "partial", "mixup": 0.5, "cutmix": 1.0},
    "sampler": {"strategy": "gradual", "balance": "sampler", "mixup": 0.2},
    "class weights": {"strategy": "lpft", "balance": "weights", "erasing": 0.5},
    "patience": {"strategy": "lpft", "patience": 1, "lr": 1e-5, "warmup_epochs": 0},
    "cached views": {"strategy": "gradual", "cache": "on", "views": 2, "augment": "strong"},
    "fresh views": {"strategy": "partial", "views": 0, "cache": "off", "dropout": 0.5},
    "small batches": {"strategy": "full", "batch_size": 23, "backbone": SHUFFLENET, "image_px": 32},
}
QUICK_OPTIONS = {"mixing": (1, "interrupted"), "cached views": (0, "killed")}


def cases() -> list[Any]:
    """Return one disturbance for each strategy, and, for the slow tests, all combinations."""
    quick, slow = {}, {}
    for number, strategy in enumerate(STRATEGIES):
        for precision in ("fp32", "bf16"):
            fields = {"strategy": strategy, "precision": precision}
            one = Case(fields, [EVERY_EPOCH[(number + 3 * (precision == "bf16")) % len(EVERY_EPOCH)]])
            is_quick = precision == "fp32" or strategy == "gradual"
            (quick if is_quick else slow)[f"{strategy} {precision}"] = one
            # Four times, so that each epoch and disturbance meets all numbers of loader processes.
            turns = [EVERY_EPOCH[(place + turn) % 8] for turn in range(4) for place in range(8)]
            slow[f"{strategy} {precision} always"] = Case({**fields, "backbone": SHUFFLENET}, turns)
    for name, fields in OPTIONS.items():
        if name in QUICK_OPTIONS:
            quick[name] = Case(fields, [QUICK_OPTIONS[name]])
        slow[f"{name} twice"] = Case(fields, TWO)
    memory = {"strategy": "lpft", "backbone": SHUFFLENET, "dropout": 0.5, "epochs": 2}
    quick["out of memory"] = Case(memory, [(1, "interrupted")], max_images=5)  # dropout draws by micro-batch
    return [
        *(pytest.param(name, case, id=name) for name, case in quick.items()),
        *(pytest.param(name, case, id=name, marks=pytest.mark.slow) for name, case in slow.items()),
    ]


class OptimizerStates:
    """Records the optimizer's state at the end of each epoch, by the number of finished epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_epoch: dict[int, dict[str, Any]] = {}
        true_save = checkpoint.save_checkpoint

        def save(path: Path, model: Any, optimizer: Any, history: Any, fields: Any, *args: Any) -> None:
            true_save(path, model, optimizer, history, fields, *args)
            if path.name == keys.LAST and optimizer is not None and fields["under_way"] is None:
                self.by_epoch[len(history)] = load_checkpoint(path)["optimizer"]

        monkeypatch.setattr(run_writer, "save_checkpoint", save)

    def assert_equal(self, expected: dict[int, dict[str, Any]]) -> None:
        assert self.by_epoch.keys() == expected.keys()
        for epoch, content in self.by_epoch.items():
            assert content["param_groups"] == expected[epoch]["param_groups"]
            assert content["state"].keys() == expected[epoch]["state"].keys()
            for number, state in content["state"].items():
                assert all(torch.equal(value, expected[epoch]["state"][number][name]) for name, value in state.items())


def disturb(config: Any, folder: Path, epoch: int, how: str) -> None:
    """Run until the second step or so after `epoch` finished epochs, and end there."""
    if how == "killed":
        with pytest.raises(Killed):
            run(config, folder, on_progress=kill_after(epoch + 0.5))
        return
    reached: list[bool] = []

    def on_progress(progress: dict[str, Any]) -> None:
        if progress["phase"] == "train" and progress["epoch"] > epoch + 0.5:
            reached.append(True)

    with pytest.raises(RunInterrupted):
        run(config, folder, on_progress=on_progress, interrupted=lambda: bool(reached))


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_disturbed_run_continues_as_the_same_run(
    name: str, case: Case, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or interrupted in some epoch, across unfreezes, with other loader processes afterwards."""
    fields = {"epochs": EPOCHS, **case.fields}
    if case.max_images is not None:
        limit_memory(monkeypatch, case.max_images)
    states = OptimizerStates(monkeypatch)
    run(small(images, **fields), tmp_path / "undisturbed")
    trained = (documents.read_json(tmp_path / "undisturbed" / keys.SUMMARY) or {})["epochs"]
    assert (trained < fields["epochs"]) == name.startswith("patience")
    expected = dict(states.by_epoch)
    for number, (epoch, how) in enumerate(case.disturbances):
        before, after = LOADER_WORKERS[number % len(LOADER_WORKERS)]
        states.by_epoch.clear()
        disturb(small(images, loader_workers=before, **fields), tmp_path / "run", epoch, how)
        run(small(images, loader_workers=after, **fields), tmp_path / "run")
        assert_same_run(tmp_path / "undisturbed", tmp_path / "run")
        states.assert_equal(expected)
        shutil.rmtree(tmp_path / "run")


def run_until_killed_while_saving(config: Config, folder: Path) -> None:
    """Run, and end without any clean-up in the middle of writing the last checkpoint of epoch 2."""
    true_save, calls = torch.save, itertools.count(1)

    def save(content: Any, file: IO[bytes]) -> None:
        true_save(content, file)
        if next(calls) == 3:
            file.truncate(file.tell() // 2)
            file.flush()
            os._exit(9)

    torch.save = save  # type: ignore[assignment]
    run(config, folder)


def test_a_process_killed_while_it_saves_loses_no_result(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path
) -> None:
    """As by SIGKILL or a power cut: the half-written file does not count, and does not stay."""
    fields, folder = {"strategy": "lpft", "epochs": 3}, tmp_path / "run"
    config = small(images, **fields)
    torch.set_num_threads(1)  # a fork does not have the threads of its parent
    process = multiprocessing.get_context("fork").Process(target=run_until_killed_while_saving, args=(config, folder))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert len(list(folder.glob(".last.pt.*.tmp"))) == 1
    lines: list[str] = []
    with each_log_line(lines.append):
        run(config, folder)
    assert "resumes after epoch 1" in lines
    assert not list(folder.glob(".*"))
    assert_same_run(undisturbed(**fields), folder)
