"""A resumed run is the same run, bitwise: weights, optimiser, history and predictions, whatever it does and when."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.config import to_dict
from finetune.errors import RunInterrupted
from finetune.run import checkpoint, run, run_writer
from finetune.run.checkpoint import load_checkpoint
from finetune.rundir import keys
from finetune.system import documents
from tests.support.logs import each_log_line
from tests.support.small_runs import assert_same_run, least_memory, small

STRATEGIES = ("head", "partial", "gradual", "lpft", "full", "scratch")
EPOCHS = 4


class _Killed(BaseException):
    pass


class Keeper:
    """Keeps the optimiser's state after each epoch of a run that is not disturbed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: dict[int, dict[str, Any]] = {}  # by epochs finished
        true_save = checkpoint.save_checkpoint

        def save(path: Path, model: Any, optimizer: Any, history: Any, fields: Any, *args: Any) -> None:
            true_save(path, model, optimizer, history, fields, *args)
            if path.name == keys.LAST and optimizer is not None and fields["under_way"] is None:
                content = load_checkpoint(path)
                self.states[len(content["history"])] = content["optimizer"]

        monkeypatch.setattr(run_writer, "save_checkpoint", save)


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number, state in one["state"].items():
        assert all(torch.equal(value, other["state"][number][name]) for name, value in state.items())


def stop(config: Any, folder: Path, epoch: int, how: str) -> None:
    """Have the run end in the epoch after `epoch`, in its second step or so: killed, or asked to."""
    reached: list[bool] = []

    def tell(progress: dict[str, Any]) -> None:
        if progress["phase"] == "train" and progress["epoch"] > epoch + 0.5:
            if how == "killed":
                raise _Killed
            reached.append(True)

    with pytest.raises(_Killed if how == "killed" else RunInterrupted):
        run.run(config, folder, on_progress=tell, interrupted=lambda: bool(reached))


def check(
    whole: Path, folder: Path, keeper: Keeper, pictures: Path, fields: dict[str, Any], cases: Iterator[tuple[int, str]]
) -> None:
    """End a run in each of these epochs, go on with it, and compare it with the whole one; loaders change at each."""
    undisturbed = dict(keeper.states)
    for number, (epoch, how) in enumerate(cases):
        before, after = [(0, 0), (0, 2), (2, 1), (1, 0)][number % 4]
        keeper.states.clear()
        stop(small(pictures, loader_workers=before, **fields), folder, epoch, how)
        run.run(small(pictures, loader_workers=after, **fields), folder)
        assert_same_run(whole, folder)
        assert keeper.states.keys() == undisturbed.keys()
        for done, state in keeper.states.items():
            assert_same_state(undisturbed[done], state)
        shutil.rmtree(folder)


def cases(every: bool, number: int) -> Iterator[tuple[int, str]]:
    """Yield epochs and endings: all of them four times, so that each meets all numbers of loaders; or one of them."""
    table = [(epoch, how) for how in ("killed", "asked") for epoch in range(EPOCHS)]
    return iter([table[(place + turn) % 8] for turn in range(4) for place in range(8)] if every else [table[number]])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_ends_in_some_epoch_goes_on_as_the_same(
    strategy: str, precision: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch and ending each, across the unfreezes; the next test has all of them."""
    fields = {"strategy": strategy, "precision": precision, "epochs": EPOCHS}
    keeper = Keeper(monkeypatch)
    run.run(small(pictures, **fields), tmp_path / "whole")
    number = STRATEGIES.index(strategy) + 3 * (precision == "bf16")
    check(tmp_path / "whole", tmp_path / "cut", keeper, pictures, fields, cases(False, number % 8))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_that_ends_in_any_epoch_goes_on_as_the_same(
    strategy: str, precision: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strategy x precision x epoch x killed or asked x loader processes before and after."""
    fields = {"strategy": strategy, "precision": precision, "backbone": "shufflenet_v2_x0_5", "epochs": EPOCHS}
    keeper = Keeper(monkeypatch)
    run.run(small(pictures, **fields), tmp_path / "whole")
    check(tmp_path / "whole", tmp_path / "cut", keeper, pictures, fields, cases(True, 0))


OPTIONS: dict[str, dict[str, Any]] = {
    "start_px": {"strategy": "full", "image_px": 48, "start_px": 24},
    "mixing": {"strategy": "partial", "mixup": 0.5, "cutmix": 1.0},
    "sampler": {"strategy": "gradual", "balance": "sampler", "mixup": 0.2},
    "weights": {"strategy": "lpft", "balance": "weights", "erasing": 0.5},
    "patience": {"strategy": "lpft", "patience": 1, "lr": 1e-5, "warmup_epochs": 0},
    "cached": {"strategy": "gradual", "cache": "on", "views": 2, "augment": "strong"},
    "fresh views": {"strategy": "partial", "views": 0, "cache": "off", "dropout": 0.5},
    "small batches": {"strategy": "full", "batch_size": 23, "backbone": "shufflenet_v2_x0_5", "image_px": 32},
}


QUICK = ("mixing", "cached")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPTIONS]
)
def test_with_every_option_that_draws_or_counts_the_resumed_run_is_the_same(
    name: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that grow, mixed pictures, drawn samples, patience, cached views; killed, and asked to end."""
    fields = {"epochs": EPOCHS, **OPTIONS[name]}
    keeper = Keeper(monkeypatch)
    run.run(small(pictures, **fields), tmp_path / "whole")
    trained = (documents.read_json(tmp_path / "whole" / keys.SUMMARY) or {})["epochs"]
    assert (trained < EPOCHS) == (name == "patience")
    check(tmp_path / "whole", tmp_path / "cut", keeper, pictures, fields, iter([(0, "killed"), (1, "asked")]))


def test_after_memory_ran_out_the_resumed_run_is_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of micro-batches is kept, by which dropout draws."""
    least_memory(monkeypatch, most=5)
    fields = {"strategy": "lpft", "backbone": "shufflenet_v2_x0_5", "dropout": 0.5, "epochs": EPOCHS}
    keeper = Keeper(monkeypatch)
    run.run(small(pictures, **fields), tmp_path / "whole")
    check(tmp_path / "whole", tmp_path / "cut", keeper, pictures, fields, iter([(1, "asked"), (2, "killed")]))


# Ends without a word in the middle of writing the last checkpoint of epoch 2, or in the third step of epoch 2.
ENDS = """
import json, os, sys
from pathlib import Path
import torch
from finetune.run import run
from finetune.config import parse_config
true_save, saves = torch.save, []
def save(content, file):
    true_save(content, file)
    saves.append(1)
    if sys.argv[1] == "save" and len(saves) == 3:
        file.truncate(file.tell() // 2)
        file.flush()
        os._exit(9)
def tell(progress):
    if sys.argv[1] == "step" and progress["epoch"] == 2.0:
        os._exit(9)
torch.save = save
run.run(parse_config(json.loads(sys.argv[2]), "a test"), Path(sys.argv[3]), on_progress=tell)
"""


@pytest.mark.parametrize("where", ["save", "step"])
def test_a_process_that_ends_without_a_word_costs_no_result(where: str, pictures: Path, tmp_path: Path) -> None:
    """As on SIGKILL or a power cut; what it was writing is not there, and does not stay."""
    import json

    config = small(pictures, strategy="lpft", epochs=3)
    run.run(config, tmp_path / "whole")
    ended = subprocess.run([sys.executable, "-c", ENDS, where, json.dumps(to_dict(config)), str(tmp_path / "cut")])
    assert ended.returncode == 9
    assert len(list((tmp_path / "cut").glob(".last.pt.*.tmp"))) == (where == "save")
    lines: list[str] = []
    with each_log_line(lines.append):
        run.run(config, tmp_path / "cut")
    assert "resumes after epoch 1" in lines
    assert not list((tmp_path / "cut").glob(".*"))
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
