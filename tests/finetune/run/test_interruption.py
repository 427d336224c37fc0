"""A run interrupted at any step continues as the same run, bit for bit; and signals interrupt it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune import __main__ as command
from finetune.errors import RunInterrupted
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents, signals
from tests.support.logs import each_log_line
from tests.support.small_runs import Killed, after, assert_same_run, flags, small


@pytest.mark.parametrize(
    ("strategy", "backbone"),
    [
        ("gradual", "shufflenet_v2_x0_5"),
        ("full", "squeezenet1_1"),
        pytest.param("scratch", "shufflenet_v2_x0_5", marks=pytest.mark.slow),
        pytest.param("partial", "shufflenet_v2_x0_5", marks=pytest.mark.slow),
        pytest.param("gradual", "efficientnet_b0", marks=pytest.mark.slow),  # with stochastic depth
    ],
)
def test_a_run_interrupted_again_and_again_is_the_same_run(
    strategy: str, backbone: str, images: Path, undisturbed: Callable[..., Path], tmp_path: Path
) -> None:
    """In the first step, in the middle and the last step of an epoch, in val and in the test."""
    fields = {"strategy": strategy, "backbone": backbone, "image_px": 32, "epochs": 2, "cache": "off"}
    config, folder = small(images, **fields), tmp_path / "run"
    for asks, place in [
        (1, "stopped after step 1 of 3 of epoch 1"),
        (2, "stopped after step 3 of 3 of epoch 1"),
        (1, "stopped in val of epoch 1"),
        (3, "stopped after step 2 of 3 of epoch 2"),
        (2, "stopped in val of epoch 2"),
        (2, "stopped in the test"),
    ]:
        with pytest.raises(RunInterrupted, match=place):
            run(config, folder, interrupted=after(asks))
        assert files.status(folder) == ("killed", f"{place}; the same command continues from there")
    run(config, folder)
    assert_same_run(undisturbed(**fields), folder)


def test_a_run_killed_after_an_interruption_continues_from_it(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path
) -> None:
    """A run may continue several times from a checkpoint within an epoch; the log says where it begins."""
    fields = {"strategy": "gradual", "epochs": 2, "cache": "off"}
    config = small(images, **fields)
    folder, lines = tmp_path / "run", []  # type: ignore[var-annotated]
    with pytest.raises(RunInterrupted, match="after step 2 of 3 of epoch 2"):
        run(config, folder, interrupted=after(6))

    def kill(progress: dict[str, Any]) -> None:
        raise Killed(progress["epoch"])

    for _ in range(2):
        with pytest.raises(Killed, match=r"^2\.0$"), each_log_line(lines.append):
            run(config, folder, on_progress=kill)
    assert lines.count("resumes after epoch 1, step 2") == 2
    run(config, folder)
    assert_same_run(undisturbed(**fields), folder)


def test_loader_processes_outlive_signals_and_their_number_may_change(
    images: Path, undisturbed: Callable[..., Path], tmp_path: Path
) -> None:
    """Ctrl-C on a terminal reaches them too; the run finishes its step, and another number of them continues."""
    fields: dict[str, Any] = {"strategy": "scratch", "epochs": 1}
    epochs: list[float] = []
    earlier = {child.pid for child in psutil.Process().children()}  # such as the fork server of earlier tests

    def signal_loaders(progress: dict[str, Any]) -> None:
        if not epochs:
            loaders = [child for child in psutil.Process().children() if child.pid not in earlier]
            assert len(loaders) == 2
            for loader in loaders:
                loader.send_signal(signal.SIGINT)
                loader.send_signal(signal.SIGTERM)
        epochs.append(progress["epoch"])

    config = small(images, loader_workers=2, **fields)
    with pytest.raises(RunInterrupted, match="after step 2 of 3"):
        run(config, tmp_path / "run", on_progress=signal_loaders, interrupted=after(2))
    assert len(epochs) == 2
    run(small(images, **fields), tmp_path / "run")
    assert_same_run(undisturbed(**fields), tmp_path / "run")


def _signalled_at_its_start(worker: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    signals.ignore_signals_in_worker(worker)


def test_a_loader_process_that_is_just_starting_outlives_signals_too(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to all processes may come before a loader has said what it does with one."""
    monkeypatch.setattr("finetune.data.dataset.ignore_signals_in_worker", _signalled_at_its_start)
    run(small(images, strategy="scratch", epochs=1, loader_workers=2), tmp_path / "run")
    assert files.status(tmp_path / "run")[0] == "finished"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_saves_and_ends_at_a_signal_and_goes_on_from_that_step(
    number: int,
    code: int,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says where it stopped, and how to continue."""
    words = [*flags(images, strategy="head", epochs=2), "--run-dir", str(tmp_path / "run")]

    def signal_in_training(progress: dict[str, Any]) -> str:
        if progress["phase"] == "train":
            os.kill(os.getpid(), number)
        return "a title"

    with monkeypatch.context() as patch:
        patch.setattr(command, "_describe", signal_in_training)
        assert command.main(words) == code
    captured = capsys.readouterr()
    assert captured.err == "stopped after step 1 of 3 of epoch 1; run the same command again to continue\n"
    assert "Traceback" not in captured.out
    assert command.main(words) == 0
    assert "resumes after epoch 0, step 1" in capsys.readouterr().out
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY)
    assert summary is not None
    assert summary["epochs"] == 2


def test_a_signal_before_the_first_step_ends_the_command_at_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a network is built, or weights are loaded, nobody asks; the claim is released all the same."""
    words = [*flags(images, strategy="head"), "--run-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr("finetune.run.build.build_classifier", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert command.main(words) == 143
    assert capsys.readouterr().err.startswith("interrupted; run the same command again")
    assert files.status(tmp_path / "run")[0] == "killed"
    assert command.main(words) == 0
