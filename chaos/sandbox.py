"""A small real sweep: images of three colours, four strategies and some seeds, a few epochs each.

Everything is as users have it: `python agent.py` processes, complete runs, the cache of the frozen prefix, unfreezing;
only the images (32 px) and the network (SqueezeNet, random weights) are small.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image

from finetune.rundir import keys

ROOT = Path(__file__).parents[1]
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
SMALL_RUN = {"backbone": "squeezenet1_1", "weights": "none", "image_px": 32, "batch_size": 8, "device": "cpu"}
STRATEGIES = ("scratch", "head", "partial", "gradual")  # without weights, `full` is `scratch`
AGENT = (sys.executable, str(ROOT / "agent.py"))
NOT_INHERITED = (
    "WANDB",
    "PYTHONDONTWRITEBYTECODE",
)  # without bytecode, each import of torch takes several times longer
NAME = "chaos"  # of the sweep


def draw_images(folder: Path, counts: Mapping[str, int]) -> Path:
    """Write noisy images of one colour, folder/split/class/NNN.png, and return the folder."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, colour in COLOURS.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (32, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{number:03}.png")
    return folder


@dataclass
class Sandbox:
    """A folder with a sweep, and the agents that have been started on it.

    Attributes:
        has_failpoints: whether the agents' processes write the fail points they pass to `log` (see failpoints.py).
        mark: value of an environment variable by which the agents' processes are found.
    """

    folder: Path
    has_failpoints: bool = False
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        """The folder of the run directories."""
        return self.folder / "runs" / NAME

    @property
    def log(self) -> Path:
        """The log of fail points."""
        return self.folder / "points.log"

    def write_sweep(self, fixed: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> None:
        """Write the sweep file: a grid over the varied fields."""
        parameters = {name: {"value": value} for name, value in fixed.items()}
        parameters |= {name: {"values": list(values)} for name, values in varied.items()}
        self.folder.mkdir(parents=True)
        (self.folder / f"{NAME}.yaml").write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}))

    def write_small_sweep(self, images: Path, seeds: int, epochs: int) -> None:
        """Write a sweep of all strategies; `gradual` unfreezes."""
        fixed = {**SMALL_RUN, "epochs": epochs, "cache": "on", "data": str(images)}
        self.write_sweep(fixed, {"strategy": STRATEGIES, "seed": range(seeds)})

    def start(self, odds: float = 0.0, seed: int = 0, program: Sequence[str] = AGENT) -> subprocess.Popen[bytes]:
        """Start an agent.

        Args:
            odds: probability that a run's process is killed at a fail point.
            program: the command, to which the sweep file is added.
        """
        hook = [str(ROOT / "chaos" / "hook")] if self.has_failpoints else []
        inherited = list(filter(None, [os.environ.get("PYTHONPATH")]))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)},
            "FINETUNE_CACHE": str(self.folder / "cache"),
            "AGENT_MARK": self.mark,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([*hook, str(ROOT), *inherited]),
        }
        if self.has_failpoints:
            environment.update(
                CHAOS_ROOTS=os.pathsep.join([str(self.folder / "runs"), str(self.folder / "cache")]),
                CHAOS_LOG=str(self.log),
                CHAOS_ODDS=str(odds),
                CHAOS_SEED=str(seed),
            )
        command = [*program, f"{NAME}.yaml", "--max-failures", "0"]
        with self.output_of(len(self.agents)).open("wb") as output:
            agent = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.agents.append(agent)
        return agent

    def output_of(self, number: int) -> Path:
        """Return the file with the output of an agent."""
        return self.folder / f"agent-{number}.txt"

    def live_agents(self) -> list[subprocess.Popen[bytes]]:
        """Return the agents that have not ended."""
        return [agent for agent in self.agents if agent.poll() is None]

    def processes(self, wanted_role: str | None = None) -> list[psutil.Process]:
        """Return the live processes of the agents, themselves included: those of a role (see `role`), or all."""
        found = []
        for process in psutil.process_iter():
            try:
                is_live = process.status() != psutil.STATUS_ZOMBIE
                is_own = is_live and process.environ().get("AGENT_MARK") == self.mark
                if is_own and (wanted_role is None or role(process) == wanted_role):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                continue
        return found

    def finished_runs(self) -> int:
        """Return the number of finished runs."""
        return len(list(self.runs.glob(f"*/{keys.SUMMARY}")))

    def kill_all(self) -> None:
        """Kill the processes that are left."""
        for process in self.processes():
            process.kill()
        for agent in self.agents:
            agent.wait()


def role(process: psutil.Process) -> str:
    """Return the role of an agent's process: agent, fork server, run, or helper (of a run or an agent)."""
    command = process.cmdline()
    if any(word.endswith(("agent.py", "chaos.fake_agent")) for word in command):
        return "agent"
    if any("multiprocessing.forkserver" in word for word in command):
        session, parent = os.getsid(process.pid), process.parent()
        if session == process.pid:
            return "run"
        if parent is not None and session == parent.pid:
            return "fork server"
    return "helper"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; return False if it does not in this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def send(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal; return False if the process has ended."""
    try:
        process.send_signal(number)
        return True
    except psutil.NoSuchProcess:
        return False
