"""A small real sweep: pictures of three colours, two networks' worth of strategies and seeds, a few epochs each.

Everything is as users have it: `python agent.py` processes, finetune.run.run, the cache of the frozen prefix and its
unfreezing; only pictures (32 px) and network (SqueezeNet, random weights) are small.
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml
from PIL import Image

from finetune.rundir import keys

ROOT = Path(__file__).parents[1]
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
SMALL = {"backbone": "squeezenet1_1", "weights": "none", "image_px": 32, "batch_size": 8, "device": "cpu"}
AGENT = (sys.executable, str(ROOT / "agent.py"))
LEFT_OUT = ("WANDB", "PYTHONDONTWRITEBYTECODE")  # importing torch takes several times longer when nothing is kept of it
NAME = "chaos"  # of the sweep


def draw(folder: Path, counts: dict[str, int]) -> Path:
    """Write noisy pictures of one colour, folder/split/class/NNN.png, and return the folder."""
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
        mark: by which processes are found, in their environment.
        hooked: whether these tell the points they pass, into `log` (see failpoints.py).
    """

    folder: Path
    hooked: bool = False
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        """The folder of the run directories."""
        return self.folder / "runs" / NAME

    @property
    def log(self) -> Path:
        """What the hooked processes tell."""
        return self.folder / "points.log"

    def write(self, pictures: Path, seeds: int, epochs: int) -> None:
        """Write the sweep: four strategies (without weights, `full` is `scratch`); `gradual` unfreezes."""
        parameters = {
            "strategy": {"values": ["scratch", "head", "partial", "gradual"]},
            "seed": {"values": list(range(seeds))},
            **{name: {"value": value} for name, value in {**SMALL, "epochs": epochs, "cache": "on"}.items()},
            "data": {"value": str(pictures)},
        }
        self.folder.mkdir(parents=True)
        spec = {"method": "grid", "parameters": parameters}
        (self.folder / f"{NAME}.yaml").write_text(yaml.safe_dump(spec))

    def start(self, odds: float = 0.0, seed: int = 0, program: Sequence[str] = AGENT) -> subprocess.Popen[bytes]:
        """Start an agent.

        Args:
            program: what to start.
            odds: of a run's process ending at any point that it passes.
        """
        kept = list(filter(None, [os.environ.get("PYTHONPATH")]))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)},
            "FINETUNE_CACHE": str(self.folder / "cache"),
            "AGENT_MARK": self.mark,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *kept]),
        }
        if self.hooked:
            environment.update(
                PYTHONPATH=os.pathsep.join([str(ROOT / "chaos" / "hook"), str(ROOT), *kept]),
                CHAOS_ROOTS=os.pathsep.join([str(self.folder / "runs"), str(self.folder / "cache")]),
                CHAOS_LOG=str(self.log),
                CHAOS_ODDS=str(odds),
                CHAOS_SEED=str(seed),
            )
        words = [*program, f"{NAME}.yaml", "--max-failures", "0"]
        with (self.folder / f"agent-{len(self.agents)}.txt").open("wb") as output:
            agent = subprocess.Popen(
                words, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.agents.append(agent)
        return agent

    def living(self) -> list[subprocess.Popen[bytes]]:
        """Return the agents that have not ended."""
        return [agent for agent in self.agents if agent.poll() is None]

    def processes(self) -> list[psutil.Process]:
        """Return all live processes of the agents, themselves included."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("AGENT_MARK") == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def is_done(self, expected: int) -> bool:
        """Whether so many runs are finished."""
        return len(list(self.runs.glob(f"*/{keys.SUMMARY}"))) == expected

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            process.kill()
        for agent in self.agents:
            agent.wait()


def role(process: psutil.Process) -> str:
    """Return what a process of an agent's is: agent, fork server, run, helper of a run, or helper of an agent."""
    words = process.cmdline()
    if any(word.endswith(("agent.py", "chaos.fake_agent")) for word in words):
        return "agent"
    if any("multiprocessing.forkserver" in word for word in words):
        if os.getsid(process.pid) == process.pid:
            return "run"
        parent = process.parent()
        leads = os.getsid(process.pid)
        return "fork server" if parent is not None and leads == parent.pid else "helper"
    return "helper"


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether the condition holds before the time is over, as soon as it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def send(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal, and return whether the process was there to get it."""
    try:
        process.send_signal(number)
        return True
    except psutil.NoSuchProcess:
        return False
