"""Runs as many probes at once as there will be runs, since they slow each other down; keeps results for an hour."""

import contextlib
import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version

from finetune.cache import store
from finetune.errors import UserError
from finetune.sweep import devices
from finetune.sweep.display import console
from finetune.sweep.forecast.probe import ProbeRequest, ProbeResult, result_from_json
from finetune.system.atomic import write_atomic
from finetune.system.environment import cache_folder, child_environment, cores

VERSION = 3  # raise this when a probe would measure something else
KEPT_SECONDS = 3600.0  # the machine's other load changes, and a probe takes less than a minute
BUSY_SHARE = 0.5  # of the cores in use before a probe, mean over a minute: its result is not kept
LIMIT_SECONDS = 300.0  # a large network on a small machine takes a minute


def run_probes(request: ProbeRequest, agents: int) -> ProbeResult:
    """Return how fast each of `agents` runs side by side is, measured now or less than an hour ago.

    Raises:
        UserError: a probe failed; the message has the last line of its output.
    """
    path = cache_folder() / "probes" / f"{_cache_key(request, agents)}.json"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # missing, or damaged
        if time.time() - path.stat().st_mtime < KEPT_SECONDS:
            return result_from_json(path.read_text())
    is_busy = os.getloadavg()[0] > BUSY_SHARE * cores()
    at_once = f", {agents} at once" if agents > 1 else ""
    console.print(f"measuring how fast this machine trains {request.backbone}{at_once}; this takes some 20 s ...")
    text = _measure_side_by_side(request, agents)
    result = result_from_json(text)
    if is_busy:
        console.print("this machine is, or was, busy with other work: without it, runs are faster than forecast")
        return result
    with contextlib.suppress(OSError):  # measured again the next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    return result


def _cache_key(request: ProbeRequest, agents: int) -> str:
    return store.key_of(
        version=VERSION,
        machine=[platform.node(), platform.machine(), cores(), devices.gpus()],
        libraries=[version("torch"), version("torchvision")],
        agents=[agents, devices.threads_per_run(agents)],
        request=dataclasses.asdict(request),
    )


def _measure_side_by_side(request: ProbeRequest, agents: int) -> str:
    """Return the result of the first of `agents` probes that run at once, as JSON."""
    end = time.monotonic() + LIMIT_SECONDS
    probes = [_start_probe(request, slot, devices.threads_per_run(agents)) for slot in range(agents)]
    try:
        return _first_result(probes, end)
    except subprocess.TimeoutExpired:
        raise UserError(f"measuring took more than {LIMIT_SECONDS:.0f} s") from None
    finally:
        for probe in probes:
            probe.communicate()  # closes its pipes


def _first_result(probes: list[subprocess.Popen[str]], end: float) -> str:
    """Return the output of the first probe, once all have ended; the first that fails ends the others."""
    with ThreadPoolExecutor(len(probes)) as pool:
        try:
            results = [pool.submit(_wait_for_result, probe, end) for probe in probes]
            for result in as_completed(results):
                result.result()
            return results[0].result()
        finally:
            for probe in probes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(probe.pid, signal.SIGKILL)  # each has a session of its own


def _start_probe(request: ProbeRequest, slot: int, threads: int) -> subprocess.Popen[str]:
    """Start a probe with the threads and the GPU of a run in this slot (see run_main.py)."""
    command = [sys.executable, "-m", "finetune.sweep.forecast.probe", json.dumps(dataclasses.asdict(request))]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(OMP_NUM_THREADS=str(threads), CUDA_VISIBLE_DEVICES=devices.gpu_of(slot)),
        start_new_session=True,
    )


def _wait_for_result(probe: subprocess.Popen[str], end: float) -> str:
    output, errors = probe.communicate(timeout=max(0.0, end - time.monotonic()))
    if probe.returncode:
        line = next((line for line in reversed(errors.splitlines()) if line.strip()), "it printed nothing")
        raise UserError(f"measuring ended with exit code {probe.returncode}: {line.strip()}")
    return output
