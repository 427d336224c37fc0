"""Many short runs through one agent: do its memory, its open files and its threads stay where they are?"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from chaos.sandbox import NAME, ROOT, Sandbox, draw, role
from finetune.rundir import keys


class Reading(NamedTuple):
    """What a process holds.

    Attributes:
        done: runs finished by then.
        who: agent or fork server.
        megabytes: of memory that it would give back (RSS).
    """

    done: int
    who: str
    megabytes: float
    files: int
    threads: int


def soak(folder: Path, runs: int, real: bool) -> tuple[int, list[Reading]]:
    """Run a sweep with one agent, and return its exit code and what was read during that.

    Args:
        real: tiny real runs; else a stand-in for training that takes milliseconds.
    """
    scene = Sandbox(folder)
    if real:
        # Three different strategies: of one epoch, `gradual` is `head`.
        scene.write(draw(folder.parent / f"{folder.name}-pictures", {"train": 6, "test": 2}), -(-runs // 3), epochs=1)
        agent = scene.start()
    else:
        folder.mkdir(parents=True)
        parameters = {"strategy": {"value": "head"}, "data": {"value": "demo"}, "epochs": {"value": 1}}
        spec = {"method": "grid", "parameters": {**parameters, "seed": {"values": list(range(runs))}}}
        (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(spec))
        agent = scene.start(program=[sys.executable, "-m", "chaos.fake_agent"])
    readings: list[Reading] = []
    try:
        while agent.poll() is None:
            done = len(list(scene.runs.glob(f"*/{keys.SUMMARY}")))
            if not readings or done >= readings[-1].done + max(1, runs // 30):
                readings += _read(scene, done)
            time.sleep(0.1)
    finally:
        scene.end()
    assert str(ROOT) not in str(scene.runs), "a soak writes nothing into the repository"
    return agent.returncode, readings


def _read(scene: Sandbox, done: int) -> list[Reading]:
    found = []
    for process in scene.processes():
        try:
            who = role(process)
            if who in ("agent", "fork server"):
                memory = process.memory_info().rss / 2**20
                found.append(Reading(done, who, memory, process.num_fds(), process.num_threads()))
        except (psutil.Error, ProcessLookupError):
            continue
    return found if len(found) == 2 else []  # one of them may be starting


def growth(readings: list[Reading], who: str) -> tuple[Reading, Reading]:
    """Return a process's first reading after a third of the runs, and its last one."""
    own = [reading for reading in readings if reading.who == who]
    last = own[-1]
    return next(reading for reading in own if reading.done >= last.done / 3), last
