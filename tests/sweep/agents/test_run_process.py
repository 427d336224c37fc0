"""The parts of a run's process that can be looked at without starting one; test_local_agent.py starts them."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.config import parse_config
from finetune.errors import ConfigError
from finetune.resolve import resolve
from finetune.run.preflight import fingerprint_inputs
from finetune.rundir import files, keys
from finetune.sweep import devices, early_stopping
from finetune.sweep.agents import run_process
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.sweep.sweep_file import SweepFile
from finetune.system import documents, environment
from tests import ROOT
from tests.support import offline


def test_slots_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the environment allows; with one or none there is nothing to choose."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    assert [devices.gpu_of(slot) for slot in range(4)] == ["0", "2", "3", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.gpu_of(1) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpu_of(0) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        (" 0, 1 ", ["0", "1"]),
        ("1,-1,2", ["1"]),
        ("0,0", ["0"]),
        ("GPU-8932f937-d72c", ["GPU-8932f937-d72c"]),
        ("MIG-GPU-8932f937/1/0,MIG-41b3", ["MIG-GPU-8932f937/1/0", "MIG-41b3"]),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(
    text: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the first that is none; each counts once."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert devices.gpus() == names


@pytest.mark.parametrize(
    ("program", "names"),
    [
        ("echo 'GPU 0: A (UUID: GPU-1)'; echo 'GPU 1: A (UUID: GPU-2)'", ["0", "1"]),
        ("echo 'GPU 0: A (UUID: GPU-1)'; echo '  MIG 1g.5gb Device 0: (UUID: MIG-7)'", ["MIG-7"]),
        ("echo 'No devices were found'; exit 6", []),
        ("printf '\\377\\n'", []),
        ("exec sleep 60", []),
    ],
)
def test_gpus_are_those_of_nvidia_smi_which_may_hang(
    program: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices of a GPU are devices of their own; odd output, or none in time, is no GPU."""
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "SMI_SECONDS", 2.0 if "sleep" not in program else 0.2)
    assert devices._listed_gpus.__wrapped__() == names


def test_cores_are_at_most_those_of_the_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert environment.cores() == 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "100000")
    many = environment.cores()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "all")
    assert environment.cores() == many


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_refused_before_anything_starts(
    device: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the driver's word, once, not run by run."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    config = parse_config(
        {"data": str(pictures), "backbone": "resnet18", "weights": "none", "device": device}, "a test"
    )
    with pytest.raises(ConfigError, match=rf"device: {device} can't be used here \(.+\): use device: auto, or cpu"):
        fingerprint_inputs(config)


def test_the_last_line_of_a_log_is_the_reason(tmp_path: Path) -> None:
    """Empty lines at its end are passed over."""
    log = tmp_path / "log.txt"
    assert run_process._last_line(log) == "its log is empty"
    log.write_text("first\nValueError: x\n\n")
    assert run_process._last_line(log) == "ValueError: x"


OUT_OF_MEMORY = "killed", "killed by signal 9 (SIGKILL); out of memory is the usual cause", "memory"


@pytest.mark.parametrize(
    ("code", "noted", "log", "outcome"),
    [
        (0, None, "", ("finished", "", "")),
        (75, None, "taken", ("taken", "another agent runs it", "")),
        (-9, ("running", "", ""), "", OUT_OF_MEMORY),
        (-7, ("running", "", ""), "", ("killed", "killed by signal 7 (SIGBUS)", "memory")),
        (-11, ("running", "", ""), "", ("killed", "killed by signal 11 (SIGSEGV)", "code")),
        (-9, ("killed", "an earlier time", ""), "", OUT_OF_MEMORY),
        (143, ("killed", "after step 3", ""), "", ("killed", "after step 3", "")),
        (130, ("killed", "after step 3", ""), "", ("killed", "after step 3", "")),
        (143, ("running", "", ""), "", ("killed", "killed by signal 15 (SIGTERM)", "")),
        (1, ("failed", "OSError: full", "disk"), "Traceback", ("failed", "OSError: full", "disk")),
        (1, ("failed", "by an older version", ""), "Traceback", ("failed", "by an older version", "code")),
        (1, ("running", "", ""), "OSError: [Errno 28] x", ("failed", "exit code 1: OSError: [Errno 28] x", "disk")),
        (2, None, "DataError: x", ("failed", "exit code 2: DataError: x", "data")),
        (2, ("failed", "last time", "code"), "ConfigError: 1 fault\n  lr", ("failed", "exit code 2: lr", "input")),
        (3, ("running", "", ""), "", ("failed", "exit code 3: its log is empty", "code")),
    ],
)  # fmt: skip
def test_how_a_process_ended_says_why_the_run_did(
    code: int,
    noted: tuple[str, str, str] | None,
    log: str,
    outcome: tuple[str, str, str],
    tmp_path: Path,
) -> None:
    """From exit code, what the run noted and its log; it is noted for the next agent."""
    if code == 0:
        documents.write_json(tmp_path / keys.SUMMARY, {"state": "finished"})
    if noted is not None:
        files.write_state(tmp_path, *noted)
    if log:
        (tmp_path / keys.LOG).write_text(log)
    ended = ended_worker(tmp_path, code).outcome()
    assert ended == outcome
    told = documents.read_json(tmp_path / keys.STATE) or {}
    if ended.state in ("failed", "killed"):
        assert (told["state"], told["reason"]) == (ended.state, ended.reason)


def ended_worker(run_dir: Path, code: int, *said: dict[str, Any]) -> run_process.RunProcess:
    """Return a worker whose process has ended, and what it said before."""
    process: Any = SimpleNamespace(exitcode=code, pid=2**30, join=lambda: None)
    words = list(said)
    pipe: Any = SimpleNamespace(close=lambda: None, poll=lambda: bool(words), recv=lambda: words.pop(0))
    return run_process.RunProcess(run_dir, process, pipe, 0.0, None)


def test_a_full_disk_does_not_keep_the_agent_from_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be noted is still told."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_state", full)
    (tmp_path / keys.LOG).write_text("OSError: [Errno 28] No space left on device")
    assert ended_worker(tmp_path, 1).outcome().cause == "disk"
    (tmp_path / keys.LOG).unlink()  # nor was there room for a word in it
    last_words = {"failed": "WriteError: last.pt can't be written", "cause": "disk"}
    ended = ended_worker(tmp_path, 1, {"epoch": 1.0}, last_words).outcome()
    assert ended == ("failed", "WriteError: last.pt can't be written", "disk")


@pytest.mark.parametrize(
    ("schedule", "epochs", "stops"),
    [
        ([[0, 0.5]], 4, True),
        ([[0, 0.5], [4, 1]], 4, False),
        ([[0, 0.5], [4, 1]], 5, False),  # bands count from the last unfreeze on, and the first is at 2
        ([[0, 0.5], [4, 1]], 6, True),
        ([[0, 0.5]], 10, False),  # over anyway
    ],
)
def test_hyperband_stops_laggards_but_never_before_the_last_unfreeze(
    tmp_path: Path, schedule: list[list[float]], epochs: int, stops: bool
) -> None:
    """Beside three finished runs at 0.9, a run at 0.1 is told to stop, once its schedule has reached its last step."""
    spec = {
        "metric": {"name": "best/val_accuracy", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
    }
    todo = SweepPlan(SweepFile(tmp_path, tmp_path, spec, ""), lambda _: ("", ""))
    for name, value, rows in [("a", 0.9, 10), ("b", 0.9, 10), ("c", 0.9, 10), ("slow", 0.1, epochs)]:
        config = resolve(parse_config({"strategy": "gradual", "unfreeze": schedule, "epochs": 10}, "here"))
        todo.runs.append(PlannedRun(name, config, config, {}, tmp_path / name))
        (tmp_path / name).mkdir()
        files.write_history(tmp_path / name, [{"epoch": 1 + row, "val/accuracy": value} for row in range(rows)])
        if name != "slow":
            documents.write_json(tmp_path / name / keys.SUMMARY, {"best/val_accuracy": value})
    seen: dict[str, int] = {}
    assert early_stopping.history_has_grown(todo, todo.runs[-1], seen)
    assert not early_stopping.history_has_grown(todo, todo.runs[-1], seen)
    early_stopping.stop_if_lagging(todo, todo.runs[-1])
    assert (tmp_path / "slow" / keys.STOP).exists() == stops


FORKS = """
import os, signal, sys, time
from multiprocessing import forkserver
from finetune.sweep.agents import fork_server
if __name__ == "__main__":
    if sys.argv[1] == "ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    context = fork_server.start_server([])
    for _ in range(5):
        server = forkserver._forkserver._forkserver_pid
        os.kill(server, signal.SIGSTOP)  # takes no more orders, and looks alive
        killer = os.fork()
        if killer == 0:
            time.sleep(0.05)
            os.kill(server, signal.SIGKILL)
            os._exit(0)
        process = fork_server.fork(context, time.sleep, (0,), "a run")
        os.waitpid(killer, 0)
        process.join()
        assert process.exitcode == 0, process.exitcode
        assert forkserver._forkserver._forkserver_pid != server
    print("done")
"""


@pytest.mark.parametrize("ends_of_children", ["told", "ignored"])
def test_a_process_is_started_though_the_fork_server_is_killed_at_that_moment(
    tmp_path: Path, ends_of_children: str
) -> None:
    """Between being asked and answering; what the first try has begun is nothing, and the next one succeeds.

    So, too, where the agent's parent ignores the ends of children, and the agent has inherited it.
    """
    script = tmp_path / "script.py"
    script.write_text(FORKS)
    environment = {**os.environ, **offline.environment(ROOT)}
    words = [sys.executable, str(script), ends_of_children]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.stdout == "done\n", done.stderr
