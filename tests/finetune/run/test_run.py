"""One run end to end: what it leaves behind, and that a resumed one is the same run."""

import argparse
import contextlib
import csv
import errno
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.__main__ import main
from finetune.config_flags import add_fields, parse_flags
from finetune.data.scan import ScanResult
from finetune.errors import DivergedError, RunInterrupted, TrainingError, UserError
from finetune.models.classifier import Classifier
from finetune.resolve import resolve
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.rundir.claim import RunTakenError, hold_claim
from finetune.rundir.failures import cause_of
from finetune.system import documents
from tests.support.logs import each_log_line
from tests.support.small_runs import flags, limit_memory, small


def parser_of_fields() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_fields(parser)
    return parser


def test_a_finished_run_directory_holds_what_the_contract_says(images: Path, tmp_path: Path) -> None:
    """Files, keys and their meaning; and the numbers agree with the predictions they come from."""
    folder = tmp_path / "sweep" / "run"
    run(small(images, strategy="gradual"), folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("config.yaml", "history.jsonl", "summary.json", "predictions.csv", "splits.csv", "thumbnails.zip"),
        *("best.pt", "last.pt", "state.json", "claim-1.json", "SHA256SUMS"),
    }
    history, torn = files.read_history(folder)
    summary = documents.read_json(folder / keys.SUMMARY)
    config = files.read_config(folder)
    assert torn == 0
    assert [set(row) for row in history] == [set(keys.HISTORY_KEYS)] * 4
    assert summary is not None
    assert set(summary) == set(keys.SUMMARY_KEYS)
    assert summary["micro_batch"] == 8
    assert [row["trainable_share"] for row in history] == pytest.approx([0, 1 / 3, 1, 1], abs=0.35)
    assert config["provenance"]["splits"] == {"train": 24, "val": 6, "test": 12}
    assert config["provenance"]["sweep"] == "sweep"
    with (folder / keys.PREDICTIONS).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert summary["test/accuracy"] == pytest.approx(sum(r["label"] == r["prediction"] for r in rows) / 12)
    assert all(sum(float(r[f"probability/{c}"]) for c in ("blue", "green", "red")) == pytest.approx(1) for r in rows)
    words = shlex.split(config["provenance"]["command"])
    assert words[:3] == ["python", "-m", "finetune"]
    again = parse_flags(parser_of_fields(), words[3:])[1]
    assert resolve(again) == resolve(small(images, strategy="gradual"))
    best = max(history, key=lambda row: (row["val/accuracy"], -row["val/loss"]))
    assert (summary["best/epoch"], summary["best/val_accuracy"]) == (best["epoch"], best["val/accuracy"])
    assert len(load_checkpoint(folder / keys.BEST)["history"]) == best["epoch"]


def test_training_learns(images: Path, tmp_path: Path) -> None:
    """Three colours are told apart: the labels, the loss and the optimiser all do their part."""
    run(small(images, strategy="scratch", backbone="resnet18", epochs=3, lr=1e-3), tmp_path / "run")
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY)
    assert summary is not None
    assert summary["test/accuracy"] > 0.9


def test_a_finished_run_is_left_alone_and_a_foreign_directory_refused(images: Path, tmp_path: Path) -> None:
    """Running again changes no byte, and says so; another config in the same directory is an error."""
    folder = tmp_path / "run"
    assert run(small(images, epochs=1), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert not run(small(images, epochs=1), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UserError, match="holds the run"):
        run(small(images, epochs=1, seed=1), folder)


def test_a_run_that_another_process_runs_is_not_run_twice(images: Path, tmp_path: Path) -> None:
    """The claim decides."""
    with hold_claim(tmp_path / "run"), pytest.raises(RunTakenError):
        run(small(images), tmp_path / "run")


def test_a_stop_file_ends_the_run_after_its_epoch_and_it_is_still_tested(images: Path, tmp_path: Path) -> None:
    """An agent that stops a hopeless run early still gets its summary."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / keys.STOP).touch()
    run(small(images), folder)
    summary = documents.read_json(folder / keys.SUMMARY)
    assert summary is not None
    assert summary["epochs"] == 1


def test_a_failed_run_says_why(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that breaks after all were looked at leaves state failed, with the file's name."""
    monkeypatch.setattr("finetune.run.preflight.load_or_scan", lambda *_: ScanResult())
    bad = sorted(pictures.glob("train/red/*.png"))[0]
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(Exception, match=bad.name):
        run(small(pictures), tmp_path / "run")
    state, reason = files.status(tmp_path / "run")
    assert state == "failed"
    assert bad.name in reason
    assert cause(tmp_path / "run") == "data"


def cause(run_dir: Path) -> str:
    return str((documents.read_json(run_dir / keys.STATE) or {})["cause"])


def test_a_loss_that_is_lost_is_noted_as_such(tmp_path: Path, images: Path) -> None:
    """So that it can be told from a fault."""
    with pytest.raises(DivergedError):
        run(small(images, strategy="scratch", lr=10.0, warmup_epochs=0), tmp_path / "run")
    assert cause(tmp_path / "run") == "divergence"


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[Path]:
    """Stand in for replacing: what is written goes to a device that is always full."""
    del path
    yield Path("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("state_too", [False, True])
def test_a_full_disk_is_told_though_that_can_not_be_written_either(
    state_too: bool, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised is the first error, with its reason, not torch's complaint about the file, nor a later one."""
    folder = tmp_path / "run"

    def fill(line: str) -> None:
        monkeypatch.setattr("finetune.run.checkpoint.replacing", full_disk)
        if state_too and not line.startswith("epoch"):
            monkeypatch.setattr("finetune.rundir.files.write_state", later)
            monkeypatch.setattr("finetune.rundir.claim.Claim.release", later)

    def later(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "a later one")

    with pytest.raises(OSError, match=r"No space left on device") as ended, each_log_line(fill):
        run(small(images, epochs=1), folder)
    assert cause_of(ended.value) == "disk"
    if not state_too:
        state, reason = files.status(folder)
        assert state == "failed"
        assert reason.startswith(
            f"WriteError: {folder / keys.LAST} can't be written (No space left on device; 7 MB needed, "
        )
        assert cause(folder) == "disk"


def test_memory_that_runs_out_at_an_unfreeze_costs_time_and_no_run(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on with micro-batches, says it, and keeps them when it is resumed."""
    monkeypatch.setattr(
        "finetune.run.run.check_largest_stage_fits", lambda *_: (0, None)
    )  # memory that another process has taken since
    config = small(images, strategy="gradual", backbone="shufflenet_v2_x0_5", unfreeze="[[0, 0], [1, 1]]", epochs=2)
    limit_memory(monkeypatch, max_images=5)
    lines: list[str] = []
    with pytest.raises(RunInterrupted), each_log_line(lines.append):
        run(config, tmp_path / "run", interrupted=lambda: any("out of memory" in x for x in lines))
    messages = [line for line in lines if "out of memory" in line]
    assert len(messages) == 1
    assert messages[0].startswith("out of memory at epoch 2, step 1, where 100%")
    assert "continues with 2 micro-batches of 4, the same batch of 8; batch-norm" in messages[0]
    lines.clear()
    with each_log_line(lines.append):
        run(config, tmp_path / "run")
    assert not [line for line in lines if "out of memory" in line]
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY)
    assert summary is not None
    assert (summary["micro_batch"], summary["epochs"]) == (4, 2)


def test_memory_that_is_too_small_for_anything_fails_the_run_with_advice(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to two images, which batch-norm needs."""
    limit_memory(monkeypatch, max_images=1)
    with pytest.raises(TrainingError, match=r"even with 2 .* at a time\. Lower image_px"):
        run(small(images, strategy="full", backbone="shufflenet_v2_x0_5"), tmp_path / "run")
    assert cause(tmp_path / "run") == "memory"


def test_pictures_grow_while_everything_trains_and_val_sees_them_whole(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages of start_px to image_px; epochs with a frozen part, val and test keep to image_px."""
    monkeypatch.setattr(
        "finetune.run.run.check_largest_stage_fits", lambda *_: (0, None)
    )  # which begins with the largest
    seen: list[tuple[int, bool]] = []
    true_suffix = Classifier.suffix

    def suffix(self: Classifier, hidden: torch.Tensor, cut: int) -> torch.Tensor:
        # Preflight looks at sizes without memory; FLOPs are counted with one image.
        if cut == 0 and hidden.device.type != "meta" and len(hidden) > 1:
            seen.append((hidden.shape[-1], self.training))
        return true_suffix(self, hidden, cut)

    monkeypatch.setattr(Classifier, "suffix", suffix)
    run(small(images, strategy="full", image_px=64, start_px=32), tmp_path / "full")
    assert [side for side, training in dict.fromkeys(seen) if training] == [32, 40, 56, 64]
    assert {side for side, training in seen if not training} == {64}
    seen.clear()
    run(small(images, strategy="lpft", image_px=64, start_px=32), tmp_path / "lpft")
    assert [side for side, training in dict.fromkeys(seen) if training] == [40, 56, 64]


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 23, "backbone": "shufflenet_v2_x0_5", "strategy": "full"},  # of 24: the last one would be alone
        {"batch_size": 1, "backbone": "resnet18", "strategy": "head"},
        {"batch_size": 1, "strategy": "full"},  # without batch-norm
        {"label_smoothing": 0.99, "strategy": "full"},
        {"lr": 10.0, "strategy": "head", "warmup_epochs": 0},
        {"balance": "weights", "mixup": 10.0, "cutmix": 0.01, "strategy": "full"},
        {"weight_decay": 1.0, "dropout": 0.99, "strategy": "full"},
    ],
)
def test_extreme_settings_give_finite_numbers(values: dict[str, Any], images: Path, tmp_path: Path) -> None:
    """All of a summary's and a history's numbers, and all weights."""
    run(small(images, epochs=1, **values), tmp_path / "run")
    weights = load_checkpoint(tmp_path / "run" / keys.LAST)["model"]
    assert all(value.isfinite().all() for value in weights.values())
    assert len(files.read_history(tmp_path / "run")[0]) == 1  # JSON has no other numbers


def test_pictures_of_one_colour_and_classes_without_val_or_test_pictures_give_finite_numbers(tmp_path: Path) -> None:
    """A class that is missing in val and test is left out of the means over classes; weights of classes are finite."""
    from PIL import Image

    lines = ["path,label,split"]
    for label, value in (("dark", 0), ("light", 255), ("rare", 128)):
        for number in range(8):
            Image.new("RGB", (32, 32), (value, value, value - (number if value else 0))).save(
                tmp_path / f"{label}{number}.png"
            )
            split = "train" if number < 4 or label == "rare" else ("val", "test")[number % 2]
            lines.append(f"{label}{number}.png,{label},{split}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    config = small(tmp_path / "list.csv", strategy="full", backbone="resnet18", epochs=1, balance="weights")
    run(config, tmp_path / "run")
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY) or {}
    assert set(summary["test/recall"]) == {"dark", "light"}
    assert 0 <= summary["test/macro_f1"] <= 1


def test_a_test_that_gives_no_numbers_is_told_with_the_picture(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Val was fine; nothing is written of such a test."""
    from finetune.run import finish as module
    from finetune.training import evaluation

    true_predict = evaluation.predict
    calls = []

    def broken(*given: Any) -> Any:
        scores, labels = true_predict(*given)
        calls.append(1)
        return (scores, labels) if len(calls) == 1 else (scores * float("nan"), labels)

    monkeypatch.setattr(module, "predict", broken)
    with pytest.raises(DivergedError, match=r"NaN for 12 of 12 test images, such as test/.*\.png"):
        run(small(images, epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / keys.PREDICTIONS).exists()


def test_the_command_runs_names_its_directory_and_does_not_run_twice(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m finetune` with every field as a flag; the log goes to the terminal and into the directory."""
    monkeypatch.chdir(tmp_path)
    assert main(flags(images, strategy="head")) == 0
    folder = next((tmp_path / "runs" / "single").iterdir())
    assert folder.name.startswith("head-")
    log = (folder / keys.LOG).read_text()
    assert "epoch 1/1" in log
    assert log in capsys.readouterr().out
    assert main(flags(images, strategy="head")) == 0
    assert "nothing to do" in capsys.readouterr().out
    # Asked for another run in there, it would be wrong to say so.
    assert main([*flags(images, strategy="head", lr=0.01), "--run-dir", str(folder)]) == 2
    assert f"holds the run {folder.name}" in capsys.readouterr().err
    assert (folder / keys.LOG).read_text() == log


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": -1, "epochs": 0, "strategy": "partal"}, ["lr", "epochs", "Did you mean 'partial'"]),
        ({"data": "nowhere"}, ["nowhere does not exist"]),
        ({"bach_size": 4}, ["--bach-size", "Did you mean '--batch-size'"]),
        ({"weights": "missing.pth"}, ["missing.pth"]),
        ({"data": "inaturalist12k"}, ["inaturalist12k"]),
        ({"image_px": 16, "backbone": "alexnet"}, ["image_px"]),
        (
            {"batch_size": 1, "image_px": 32, "backbone": "resnet18", "strategy": "full"},
            ["batch_size", "can't train on 1 image of 32 pixels: give 2 or more"],
        ),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(
    values: dict[str, Any],
    words: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, a message that names the fault, no traceback, no file."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert main(flags(images, **values)) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert list(work.iterdir()) == []
