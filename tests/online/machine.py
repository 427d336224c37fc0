"""Helpers of the tests against the loopback W&B server: a machine, that is a folder and an environment, on it."""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from finetune.rundir import files
from finetune.system import documents
from tests import ROOT
from tests.support import offline
from tests.support.processes import end_marked, marked, wait_until
from tests.support.wandb_server.server import DEFAULT_PROJECT, Server

AGENT = str(ROOT / "agent.py")
PROGRAM = str(ROOT / "tests/online/fake_program.py")


@dataclass
class Machine:
    """A folder to work in, with an environment that leads to the server; its processes carry a mark."""

    server: Server
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    has_ended: bool = False

    def __post_init__(self) -> None:
        _MACHINES.append(self)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sweeps").mkdir(exist_ok=True)

    def start(self, *command: str, **more: object) -> subprocess.Popen[str]:
        """Start a command in the folder; `python` is this Python."""
        assert not self.has_ended, "the test has been interrupted"
        words = [sys.executable if word == "python" else word for word in command]
        environment = {**self.server.environment(self.folder / "home"), **offline.environment(ROOT)}
        environment |= {"FINETUNE_WANDB_WAIT": "180", **self.environment}  # a busy machine is no silent server
        environment |= {name: str(value) for name, value in more.items()} | {"AGENT_MARK": self.mark}
        process = subprocess.Popen(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *command: str, seconds: float = 400, **more: object) -> tuple[int, str]:
        """Run a command to its end; return exit code and output."""
        with self.start(*command, **more) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            finally:
                process.kill()
        return process.returncode, output

    def agent(self, *arguments: str, **more: object) -> tuple[int, str]:
        """Run agents of the stand-in to their end: agent.py itself, as in `make agents`, takes seconds for torch."""
        return self.run("python", PROGRAM, *arguments, **more)

    def sweep(self, parameters: dict[str, Any], method: str = "grid", *, by_command: bool = False, **more: Any) -> str:
        """Create a sweep, with `wandb sweep` or, in a fraction of the time, at the server itself; return its id."""
        spec = {
            "program": PROGRAM,
            "project": DEFAULT_PROJECT,
            "method": method,
            "metric": {"name": "best/val_accuracy", "goal": "maximize"},
            "parameters": {name: _parameter(value) for name, value in parameters.items()},
            **more,
        }
        text = yaml.safe_dump(spec)
        if not by_command:
            return self.server.create_sweep(text)
        (self.folder / "sweep.yaml").write_text(text)
        code, output = self.run("wandb", "sweep", "sweep.yaml")
        assert code == 0, output
        return self.server.sweeps()[-1].id

    def runs(self, sweep: str) -> list[Path]:
        """Return the run directories of a sweep here."""
        folder = self.folder / "runs" / sweep
        return files.find_runs(folder) if folder.exists() else []

    def processes(self) -> list[psutil.Process]:
        """Return the live processes that were started here, W&B's own ones included."""
        return marked(self.mark)

    def end(self) -> None:
        """Kill what was started here, whatever its test would do next."""
        self.has_ended = True
        end_marked(self.mark)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition holds."""
        wait_until(lambda: self.has_ended or condition())
        assert not self.has_ended, "the test has been interrupted"

    def wait_empty(self, seconds: float = 120) -> None:
        """Fail if a process is still there after some seconds."""
        wait_until(lambda: not self.processes(), seconds)


_MACHINES: list[Machine] = []


def end_machines() -> None:
    """Kill what all machines have started, whatever their tests would do next."""
    for machine in list(_MACHINES):
        machine.end()


@contextlib.contextmanager
def machines_ended(server: Server) -> Iterator[None]:
    """End what machines on this server have left behind, whatever happens in between."""
    try:
        yield
    finally:
        for machine in [machine for machine in _MACHINES if machine.server is server]:
            machine.end()
            for process in machine.started:
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
            _MACHINES.remove(machine)


def _parameter(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {"values": value} if isinstance(value, list) else {"value": value}


def sent(run_dir: Path) -> list[dict[str, Any]]:
    """Return what the run directory says of what W&B has got."""
    return [json.loads(file.read_text()) for file in sorted(run_dir.glob("wandb-*.json"))]


def starts(run_dir: Path) -> int:
    """Return how often the stand-in has been started in this directory."""
    return len((run_dir / "starts.txt").read_text().splitlines())


def peers(run_dir: Path) -> set[int] | None:
    """Return the seeds of the peers that the stand-in was told of in this directory, or None if of none."""
    seeds = (documents.read_json(run_dir / "peers.json") or {})["seeds"]
    return None if seeds is None else set(seeds)


def environment_without_login() -> dict[str, str]:
    """Return what takes the login away."""
    return {"WANDB_API_KEY": "", "NETRC": os.devnull}
