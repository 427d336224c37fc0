"""Agents, their runs and the copies of these on disks that are full: nothing is lost, nothing waits for ever."""

import errno
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune import publish
from finetune.rundir import claim, files, keys
from finetune.sweep import early_stopping
from finetune.sweep.agents import launch, wandb_agents
from finetune.sweep.agents.training_api import AgentOptions
from finetune.sweep.agents.wandb_trial import StopPolicy
from finetune.system import documents
from finetune.system.atomic import WriteError, write_atomic
from finetune.system.output import logging_to
from finetune.tracking import mirror_process, sweep_server, wandb_run
from finetune.tracking.mirror_client import WandbRunRef
from finetune.tracking.mirror_process import MirrorCommands
from finetune.tracking.sweep_server import FailedWandbRun, WandbSweep
from tests.online.machine import PROGRAM
from tests.support.agent_processes import CODE, Place, write_hyperband, write_sweep
from tests.support.fabricate import fabricate_run
from tests.support.failing_disk import failing_disk
from tests.support.processes import wait_until

FULL = "/dev/full"
needs_full_device = pytest.mark.skipif(not os.access(FULL, os.W_OK), reason=f"there is no {FULL} here")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a sweep of two seeds."""
    write_sweep(tmp_path, seeds=2)
    return Place(tmp_path)


def test_a_plan_needs_no_room(place: Place) -> None:
    """It is printed where not a byte can be written."""
    with failing_disk(place.folder / "runs", place.folder / "cache") as disk:
        disk.arm(0)
        code, output = place.run("seeds.yaml", "--plan")
    assert code == 0, output
    assert "2 to do" in output
    assert not (place.folder / "runs").exists()


def test_a_run_that_can_not_be_told_to_stop_early_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hyperband's file can't be written: all runs train to their last epoch, and nothing has failed."""
    write_hyperband(place.folder, 1, epochs=4)
    tried, real = place.folder / "output-tried", write_atomic

    def write(path: Path, text: str) -> None:
        if path.name == keys.STOP:
            tried.touch()
            raise WriteError(errno.ENOSPC, "No space left on device", path, None)
        real(path, text)

    monkeypatch.setattr(early_stopping, "write_atomic", write)  # in the agent, which is a fork of this process
    code, output = place.run("seeds.yaml", seconds=0.25)
    assert tried.exists()
    assert code == 0, output
    assert "Traceback" not in output
    assert [(documents.read_json(run / keys.SUMMARY) or {})["epochs"] for run in place.runs()] == [4, 4, 4]


def test_a_run_that_the_server_stops_goes_on_until_that_can_be_noted(tmp_path: Path) -> None:
    """It is no signal to save and end; as soon as there is room, the run is asked to end after its epoch."""
    signals, told = SimpleNamespace(number=0), SimpleNamespace(stop=True)
    interrupted = StopPolicy(signals, told, tmp_path)  # type: ignore[arg-type]
    with failing_disk(tmp_path) as disk:
        disk.arm(0)
        assert interrupted() is False
        assert disk.hit
        assert list(tmp_path.iterdir()) == []
        disk.arm(None)
        assert interrupted() is False
    assert (tmp_path / keys.STOP).exists()


def test_a_heartbeat_that_can_not_be_written_ends_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried on and on, and not beyond the run, which another process can then go on with."""
    monkeypatch.setattr(claim, "HEARTBEAT_SECONDS", 0.01)
    with failing_disk(tmp_path) as disk:
        with claim.hold_claim(tmp_path) as mine:
            disk.arm(0)
            wait_until(lambda: len(disk.writes) > 4)
            with pytest.raises(WriteError, match=r"claim-1\.json can't be written \(No space left on device"):
                mine.beat()
            assert claim.is_alive(tmp_path)
            beating = [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
        assert beating
        assert not any(thread.is_alive() for thread in beating)
        assert not claim.is_alive(tmp_path)
        disk.arm(None)
        with claim.hold_claim(tmp_path):
            pass


def test_a_log_that_can_not_be_opened_costs_the_log(place: Place) -> None:
    """Runs are finished, and one that fails is told; what it would have logged is lost."""
    assert place.run("seeds.yaml", fail="0,1")[0] == 1
    for run in place.runs():
        (run / keys.LOG).unlink()
        (run / keys.LOG).mkdir()
    code, output = place.run("seeds.yaml", "--retry-failed", refuse="1")
    assert "Traceback" not in output
    assert place.states() == ["failed", "finished"]
    assert (code, output.count("failed: exit code 2: its log is empty")) == (1, 1)


@needs_full_device
def test_what_an_agent_prints_goes_to_a_full_disk(tmp_path: Path) -> None:
    """The sweep is run to its end; then it is said, with exit code 1; the same command is done at once."""
    write_sweep(tmp_path, seeds=2)
    with open(FULL, "w") as full:  # noqa: PTH123  (no file that a path would be of use for)
        ended = subprocess.run([sys.executable, PROGRAM, "seeds.yaml", "--agents", "2"], cwd=tmp_path, stdout=full,
                               stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    lost = "standard output: No space left on device; part of the output is lost. Make room there\n"
    assert (ended.returncode, ended.stderr) == (1, lost)
    runs = files.find_runs(tmp_path / "runs/seeds")
    assert [files.status(run)[0] for run in runs] == ["finished"] * 2


@needs_full_device
def test_the_log_of_a_server_s_agent_is_on_a_full_disk(tmp_path: Path) -> None:
    """The run that it has started is finished all the same, and has a log of its own."""
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\nseed: {value: 0}\nepochs: {value: 2}\nstrategy: {value: head}\n")
    handed = {"WANDB_SWEEP_ID": "abcdefgh", "WANDB_RUN_ID": "aaaa0000", "WANDB_SWEEP_PARAM_PATH": str(parameters)}
    with open(FULL, "w") as full:  # noqa: PTH123
        code = subprocess.run([sys.executable, PROGRAM, "--seed=0"], cwd=tmp_path, stdout=full, stderr=full,
                              env={**os.environ, **handed}, check=False).returncode  # fmt: skip
    assert code == 1  # something that was to be read is lost
    (run,) = files.find_runs(tmp_path / "runs/abcdefgh")
    assert files.status(run)[0] == "finished"
    assert (run / keys.LOG).read_text().splitlines() == ["attempt 1 of seed 0", "epoch 1", "epoch 2"]


def test_a_log_of_a_server_s_agent_that_can_not_be_opened_costs_the_log(tmp_path: Path) -> None:
    """The agent is started all the same."""
    with failing_disk(tmp_path) as disk:
        disk.arm(0)
        process = launch.start_process([sys.executable, "-c", "print('told')"], 0, 1, tmp_path)
        assert process.wait() == 0
        process.stdin.close()  # type: ignore[union-attr]
        assert disk.hit == "open agent-1.txt"
    assert list(tmp_path.iterdir()) == []


def test_runs_that_are_started_again_go_on_when_the_next_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What W&B's agent would have handed to the second can't be written: the first ends in peace; exit code 1."""
    monkeypatch.chdir(tmp_path)
    remote = WandbSweep("me", "p", "abcdefgh", spec={"command": [sys.executable, "-c", FIRST]})
    monkeypatch.setattr(
        sweep_server, "failed_runs", lambda _: [FailedWandbRun(name, {}, "", "") for name in ("one", "two", "three")]
    )
    monkeypatch.setattr(sweep_server, "count_states", lambda _: Counter())
    monkeypatch.setattr(wandb_agents, "prepare_inputs", lambda *_: None)
    with failing_disk(tmp_path / "runs/abcdefgh/wandb") as disk:

        def start(*given: Any) -> Any:
            disk.arm(0 if given[1].id == "two" else None)
            started.append(real(*given))
            return started[-1]

        real, started = launch.restart_run, []
        monkeypatch.setattr(launch, "restart_run", start)
        assert wandb_agents.retry_failed(remote, CODE, AgentOptions(agents=2, max_failures=0)) == 1
        for process in started:
            process.stdin.close()
    said = capfd.readouterr().out
    assert said.count("WriteError: runs/abcdefgh/wandb/retry-two.yaml can't be written (No space left on device") == 1
    assert "no more runs are started" in said
    assert (tmp_path / "ended").read_text() == "one"


def test_a_sweep_that_can_not_be_noted_is_not_made_on_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each further try would make one more; with room it is made, and found again."""
    (tmp_path / keys.SWEEP).write_text("method: grid\nparameters: {}\n")
    made: list[str] = []

    def create(spec: dict[str, Any], entity: str | None, project: str) -> WandbSweep:
        made.append(project)
        return WandbSweep(entity or "me", project, f"abcdefg{len(made)}", spec=spec)

    monkeypatch.setattr(sweep_server, "create_sweep", create)
    with failing_disk(tmp_path) as disk:
        for number in range(2):
            disk.arm(number)
            with pytest.raises(WriteError, match=r"wandb\.json can't be written \(No space left on device"):
                publish._remote(tmp_path, None, "p")
            assert disk.hit
    assert made == []
    assert publish._remote(tmp_path, None, "p").id == "abcdefg1"
    named = {"entity": "me", "project": "p", "sweep": "abcdefg1", "url": ""}
    assert documents.read_json(tmp_path / keys.REMOTE) == named


FIRST = """
import os, pathlib, time
time.sleep(0.3)
pathlib.Path("ended").write_text(os.environ["WANDB_RUN_ID"])
"""


def test_a_line_that_can_not_be_logged_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run does not end for its log."""
    with failing_disk(tmp_path) as disk:
        disk.arm(0)
        with logging_to("stdout", tmp_path / keys.LOG):
            logging.getLogger("finetune").info("epoch 1")
        assert disk.hit
    assert capsys.readouterr().out == "epoch 1\n"


class RunOnServer(SimpleNamespace):
    """As much of W&B's own run as the mirror talks to."""

    def __init__(self) -> None:
        super().__init__(entity="me", project="p", id="aaaa0000", url="http://server/aaaa0000", resumed=False,
                         starting_step=0, epochs=[], ended=None)  # fmt: skip

    def log(self, row: dict[str, Any], **_: Any) -> None:
        self.epochs.append(row["epoch"])


@pytest.mark.parametrize("full_until_the_end", [True, False])
def test_a_copy_is_sent_from_a_full_disk(
    full_until_the_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All epochs arrive, and the server learns that the run is finished; the note of that is written once it can be."""
    run_dir = fabricate_run(tmp_path, "head-1", epochs=2)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    run, orders, said = RunOnServer(), object.__new__(MirrorCommands), []
    orders.__dict__.update(run_dir=run_dir, log_start=0, preempting=False, asks_stop=False, end=None, left=3)
    monkeypatch.setattr(wandb_run, "finish_finished", lambda run, _: setattr(run, "ended", "finished"))
    with failing_disk(run_dir) as disk:

        def wait(_: float) -> None:
            orders.left -= 1  # type: ignore[attr-defined]
            if orders.left == 1 and not full_until_the_end:  # type: ignore[attr-defined]
                disk.arm(None)
            if orders.left == 0:  # type: ignore[attr-defined]
                orders.end = {"code": 0, "state": "finished", "reason": "", "cause": ""}

        monkeypatch.setattr(orders, "wait", wait, raising=False)
        disk.arm(0)
        mirror = mirror_process.Mirror(WandbRunRef("me", "p", "aaaa0000"), orders, said.append, tmp_path, 1)
        with mirror_process.run_lock(run_dir, mirror.run_ref):
            mirror.copy_until_end(run, run_dir, is_repeated=False)
        assert full_until_the_end == bool(disk.hit)
    assert (run.epochs, run.ended, said) == ([1, 2], "finished", [])
    note = documents.read_json(run_dir / "wandb-aaaa0000.json")
    assert (note is None) == full_until_the_end
    assert note is None or (note["sent"], note["path"]) == (True, "me/p/aaaa0000")
    assert {name: (run_dir / name).read_bytes() for name in before} == before
