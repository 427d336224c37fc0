"""Many short runs through one agent: do its memory, open files and threads stay where they are?"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from chaos.sandbox import ROOT, STRATEGIES, Sandbox, draw_images

ROLES = ("agent", "fork server")  # the processes that live as long as the sweep


class Reading(NamedTuple):
    """The resources of a process."""

    finished: int  # number of runs finished by then
    role: str  # agent or fork server
    megabytes: float  # resident memory
    files: int  # open file descriptors
    threads: int  # number of threads


def soak(folder: Path, runs: int, real: bool) -> tuple[int, list[Reading]]:
    """Run a sweep with one agent; return its exit code and the readings taken meanwhile.

    Args:
        real: tiny real runs; else fake ones that take milliseconds.
    """
    sandbox = Sandbox(folder)
    if real:
        images = draw_images(folder.parent / f"{folder.name}-pictures", {"train": 6, "test": 2})
        # Three different strategies: in one epoch, `gradual` is `head`, and so a run that is done already.
        sandbox.write_small_sweep(images, -(-runs // (len(STRATEGIES) - 1)), epochs=1)
        agent = sandbox.start()
    else:
        sandbox.write_sweep({"strategy": "head", "data": "demo", "epochs": 1}, {"seed": range(runs)})
        agent = sandbox.start(program=[sys.executable, "-m", "chaos.fake_agent"])
    readings: list[Reading] = []
    try:
        while agent.poll() is None:
            finished = sandbox.finished_runs()
            if not readings or finished >= readings[-1].finished + max(1, runs // 30):
                readings += _read(sandbox, finished)
            time.sleep(0.1)
    finally:
        sandbox.kill_all()
    assert str(ROOT) not in str(sandbox.runs), "a soak writes nothing into the repository"
    return agent.returncode, readings


def _read(sandbox: Sandbox, finished: int) -> list[Reading]:
    found = []
    for role in ROLES:
        for process in sandbox.processes(role):
            try:
                memory = process.memory_info().rss / 2**20
                found.append(Reading(finished, role, memory, process.num_fds(), process.num_threads()))
            except psutil.Error:
                continue
    return found if len(found) == len(ROLES) else []  # one of them may be starting


def growth(readings: list[Reading], role: str) -> tuple[Reading, Reading]:
    """Return a process's first reading after a third of the runs, and its last one."""
    own = [reading for reading in readings if reading.role == role]
    return next(reading for reading in own if reading.finished >= own[-1].finished / 3), own[-1]
