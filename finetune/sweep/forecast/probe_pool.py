"""Measures how fast this machine is: as many probes at once as there will be runs, since they slow each other down."""

import contextlib
import dataclasses
import os
import platform
import signal
import subprocess
import sys
import time
from importlib.metadata import version

from finetune.cache import store
from finetune.errors import UserError
from finetune.sweep import devices
from finetune.sweep.display import console
from finetune.sweep.forecast import probe
from finetune.sweep.forecast.probe import ProbeRequest, ProbeResult
from finetune.system import environment
from finetune.system.atomic import write_atomic
from finetune.system.environment import cache_folder, python_path

VERSION = 2  # to be raised whenever the same machine would tell something else
KEPT_SECONDS = 3600.0  # what else the machine does changes, and a probe takes less than a minute
BUSY_SHARE = 0.5  # of the cores at work before a probe, mean over a minute: what it tells is not kept
LIMIT_SECONDS = 300.0  # a large network on a small machine takes a minute


def speed_of(wanted: ProbeRequest, agents: int) -> ProbeResult:
    """Return how fast each of `agents` runs side by side is: the mean of as many probes, or what they told lately.

    Raises:
        UserError: a probe failed; the message has its last line.
    """
    threads = devices.threads(agents)
    kept = cache_folder() / "probes" / f"{_key(wanted, agents, threads)}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # not there, or of another version
        if time.time() - kept.stat().st_mtime < KEPT_SECONDS:
            return probe.result_from(kept.read_text())
    busy = os.getloadavg()[0] > BUSY_SHARE * environment.cores()
    at_once = f", {agents} at once" if agents > 1 else ""
    console.print(f"measuring how fast this machine trains {wanted.backbone}{at_once}; this takes some 20 s ...")
    speed = probe.mean(_side_by_side(wanted, agents, threads))
    if busy:
        console.print(
            "this machine is busy with other work, or was a minute ago: without it, things go faster than forecast"
        )
        return speed
    with contextlib.suppress(OSError):  # measured again the next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, probe.to_json(speed))
    return speed


def _key(wanted: ProbeRequest, agents: int, threads: int) -> str:
    return store.key_of(
        version=VERSION,
        machine=[platform.node(), platform.machine(), environment.cores(), devices.gpus()],
        libraries=[version("torch"), version("torchvision")],
        shared=[agents, threads],
        wanted=dataclasses.asdict(wanted),
    )


def _side_by_side(wanted: ProbeRequest, agents: int, threads: int) -> list[ProbeResult]:
    """Return what so many processes measure at once."""
    processes = [_start(slot, threads) for slot in range(agents)]
    end = time.monotonic() + LIMIT_SECONDS
    try:
        for process in processes:
            assert process.stdin is not None, "a pipe was asked for"
            with contextlib.suppress(BrokenPipeError):  # it has ended; its last line says why
                process.stdin.write(probe.to_json(wanted))
                process.stdin.close()
            process.stdin = None
        return [_result(process, end) for process in processes]
    except subprocess.TimeoutExpired:
        raise UserError(f"measuring took more than {LIMIT_SECONDS:.0f} s") from None
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            process.communicate()


def _start(slot: int, threads: int) -> subprocess.Popen[str]:
    """Start a probe with what a run in this slot would have (see run_process.py)."""
    gpu = devices.gpu_of(slot)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": python_path(),
        **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "finetune.sweep.forecast.probe"],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _result(process: subprocess.Popen[str], end: float) -> ProbeResult:
    output, errors = process.communicate(timeout=max(0.0, end - time.monotonic()))
    if process.returncode:
        line = next((line for line in reversed(errors.splitlines()) if line.strip()), "it said nothing")
        raise UserError(f"measuring ended with exit code {process.returncode}: {line.strip()}")
    return probe.result_from(output)
