"""A run that is interrupted at any step goes on as the same run, bitwise; and signals interrupt it."""

import os
import signal
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
from tests.support.small_runs import after, assert_same_run, flags, small


@pytest.mark.parametrize(
    ("strategy", "backbone"),
    [
        ("scratch", "shufflenet_v2_x0_5"),
        ("partial", "shufflenet_v2_x0_5"),
        ("gradual", "shufflenet_v2_x0_5"),
        ("full", "squeezenet1_1"),
        pytest.param("gradual", "efficientnet_b0", marks=pytest.mark.slow),  # with stochastic depth
    ],
)
def test_a_run_interrupted_again_and_again_is_the_same_run(
    strategy: str, backbone: str, pictures: Path, tmp_path: Path
) -> None:
    """In the first step, in the middle and the last step of an epoch, in val and in the test."""
    config = small(pictures, strategy=strategy, backbone=backbone, image_px=32, epochs=2)
    run(config, tmp_path / "whole")
    folder = tmp_path / "cut"
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
    assert_same_run(tmp_path / "whole", folder)


class _Killed(BaseException):
    pass


def test_a_run_killed_after_an_interruption_goes_on_from_it(pictures: Path, tmp_path: Path) -> None:
    """A checkpoint in mid-epoch serves as well as one between epochs, and as often; the log says where it begins."""
    config = small(pictures, strategy="gradual", epochs=2)
    run(config, tmp_path / "whole")
    folder, lines = tmp_path / "cut", []  # type: ignore[var-annotated]
    with pytest.raises(RunInterrupted, match="after step 2 of 3 of epoch 2"):
        run(config, folder, interrupted=after(6))

    def kill(progress: dict[str, Any]) -> None:
        raise _Killed(progress["epoch"])

    for _ in range(2):
        with pytest.raises(_Killed, match=r"^2\.0$"), each_log_line(lines.append):
            run(config, folder, on_progress=kill)
    assert lines.count("resumes after epoch 1, step 2") == 2
    run(config, folder)
    assert_same_run(tmp_path / "whole", folder)


def test_loader_processes_outlive_signals_and_their_number_may_change(pictures: Path, tmp_path: Path) -> None:
    """Ctrl-C on a terminal reaches them too; the step is finished all the same, and others go on from it."""
    run(small(pictures, strategy="scratch", epochs=1), tmp_path / "whole")
    told: list[float] = []
    others = {child.pid for child in psutil.Process().children()}  # such as the fork server of earlier tests

    def to_all_children(progress: dict[str, Any]) -> None:
        if not told:
            loaders = [child for child in psutil.Process().children() if child.pid not in others]
            assert len(loaders) == 2
            for loader in loaders:
                loader.send_signal(signal.SIGINT)
                loader.send_signal(signal.SIGTERM)
        told.append(progress["epoch"])

    with pytest.raises(RunInterrupted, match="after step 2 of 3"):
        run(
            small(pictures, strategy="scratch", epochs=1, loader_workers=2),
            tmp_path / "cut",
            on_progress=to_all_children,
            interrupted=after(2),
        )
    assert len(told) == 2
    run(small(pictures, strategy="scratch", epochs=1), tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def _signalled_at_its_start(worker: int) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    signals.ignore_signals_in_worker(worker)


def test_a_loader_process_that_is_just_starting_outlives_signals_too(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal to all processes may come before a loader has said what it does with one."""
    monkeypatch.setattr("finetune.data.dataset.ignore_signals_in_worker", _signalled_at_its_start)
    run(small(pictures, strategy="scratch", epochs=1, loader_workers=2), tmp_path / "run")
    assert files.status(tmp_path / "run")[0] == "finished"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_saves_and_ends_at_a_signal_and_goes_on_from_that_step(
    number: int,
    code: int,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The message says where it stopped, and how to continue."""
    words = [*flags(pictures, strategy="head", epochs=2), "--run-dir", str(tmp_path / "run")]

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
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a network is built, or weights are loaded, nobody asks; the claim is released all the same."""
    words = [*flags(pictures, strategy="head"), "--run-dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr("finetune.run.build.build_classifier", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert command.main(words) == 143
    assert capsys.readouterr().err.startswith("interrupted; run the same command again")
    assert files.status(tmp_path / "run")[0] == "killed"
    assert command.main(words) == 0
