"""Sweeps of the loopback W&B backend, with W&B's own agents and commands as processes of their own."""

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.online.real_client import python, server, steps
from tests.online.runs_on_server import PROJECT, put_sweep
from tests.support.processes import end_marked, wait_until
from tests.support.wandb_server.cli import wandb_command
from tests.support.wandb_server.mutations import upsert_sweep
from tests.support.wandb_server.search import heartbeat
from tests.support.wandb_server.server import Server
from tests.support.wandb_server.store import ENTITY, Agent

__all__ = ["python", "server"]  # fixtures

GRID = {"method": "grid", "program": "loop.py", "parameters": {"lr": {"values": [1, 2]}, "b": {"value": 7}}}
# Trains until told: a file named after the value ends the run, one named "preempt" ends it as a lost machine does.
TRAIN = """\
import pathlib, sys, time, wandb
wandb.Run._detect_and_apply_job_inputs = lambda _: None  # imports for half a second
run = wandb.init(resume="allow", settings=wandb.Settings(x_save_requirements=False, disable_git=True))
run.log({"loss": run.config.lr})
while True:
    if pathlib.Path("preempt").exists():
        pathlib.Path("preempt").unlink()
        run.mark_preempting()
        sys.exit(1)
    if pathlib.Path(f"end-{run.config.lr}").exists():
        break
    time.sleep(0.05)
run.log({"loss": 0.5})
"""


class Trainer:
    """A folder with a training script and a sweep over it."""

    def __init__(self, server: Server, folder: Path, values: list[int]) -> None:
        self.server, self.folder = server, folder
        (folder / "loop.py").write_text(TRAIN)
        self.sweep = put_sweep(server, spec={**GRID, "parameters": {"lr": {"values": values}}})
        self.agents: list[subprocess.Popen[str]] = []
        self.mark = uuid.uuid4().hex  # by which the processes of its runs are found

    @property
    def path(self) -> str:
        """How commands name the sweep."""
        return f"{ENTITY}/{PROJECT}/{self.sweep}"

    def wandb(self, *arguments: str) -> None:
        """Run a command of `wandb` to its end."""
        environment = self.server.environment(self.folder / "home")
        subprocess.run(["wandb", *arguments], env=environment, cwd=self.folder, check=True, capture_output=True)

    def agent(self) -> subprocess.Popen[str]:
        """Start an agent."""
        command = wandb_command("agent", self.path, poll=0.2)
        environment = {**self.server.environment(self.folder / "home"), "AGENT_MARK": self.mark}
        with (self.folder / f"agent-{len(self.agents)}.log").open("w") as log:
            agent = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log, text=True)
        self.agents.append(agent)
        return agent

    def end(self, value: int) -> None:
        """Let the run with this value end."""
        (self.folder / f"end-{value}").touch()

    def states(self) -> list[str]:
        """Return the states of the runs."""
        return [run.state for run in self.server.sweep(self.sweep).runs]

    def trains(self, number: int) -> bool:
        """Say whether so many runs are there, and the last of them has logged."""
        runs = self.server.sweep(self.sweep).runs
        return len(runs) == number and bool(runs[-1].history)


@pytest.fixture
def trainer(server: Server, tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    """Return what makes a trainer; its agents and their runs are gone afterwards, whatever has failed."""
    made: list[Trainer] = []

    def make(*values: int) -> Trainer:
        made.append(Trainer(server, tmp_path, list(values)))
        return made[-1]

    yield make
    for agent in [agent for trainer in made for agent in trainer.agents]:
        agent.kill()
        agent.wait()
    for trainer in made:
        end_marked(trainer.mark)


def test_a_grid_runs_to_its_end_though_a_run_is_preempted(
    server: Server, trainer: Callable[..., Trainer], python: Callable[..., Any]
) -> None:
    job = trainer(2, 1)
    (job.folder / "sweep.yaml").write_text(
        "program: loop.py\nproject: finetune-sweeps\nmethod: grid\nparameters:\n  lr: {values: [2, 1]}\n"
    )
    job.wandb("sweep", "sweep.yaml")
    job.sweep = server.sweeps()[-1].id
    assert server.sweep(job.sweep).state == "PENDING"
    agent = job.agent()
    wait_until(lambda: job.trains(1))
    (first,) = server.sweep(job.sweep).runs
    (job.folder / "preempt").touch()
    wait_until(lambda: len(first.history) == 2 and first.state == "running")
    job.end(1)
    job.end(2)
    assert agent.wait(timeout=120) == 0
    assert (steps(first), first.preempting) == ([0, 1, 2], False)
    sweep = server.sweep(job.sweep)
    assert sweep.state == "FINISHED"
    assert [(run.config, run.state) for run in sweep.runs] == [({"lr": 2}, "finished"), ({"lr": 1}, "finished")]
    told = python("""
import json, os, wandb
api, name = wandb.Api(), os.environ["SWEEP"]
sweep = api.sweep(f"tester/finetune-sweeps/{name}")
own = {"sweep": name}
def ids(**more):
    return [run.id for run in api.runs("tester/finetune-sweeps", **more)]
print(json.dumps({
    "state": sweep.state, "runs": [run.id for run in sweep.runs], "expected": sweep.expected_run_count,
    "best": sweep.best_run(order="-config.lr.value").config,
    "agents": [[r.id for r in a.runs()] for a in sweep.agents()],
    "newest": next(iter(api.project("finetune-sweeps", "tester").sweeps())).id,
    "created": sweep._attrs["createdAt"],
    "pages": ids(filters=own, per_page=1), "down": ids(filters=own, order="-created_at", lazy=False),
    "some": ids(filters={"$and": [own, {"$or": [{"config.lr": 1}, {"state": {"$in": ["failed"]}}]}]}),
}))
""", SWEEP=job.sweep)  # fmt: skip
    names = [run.id for run in sweep.runs]
    assert (told["state"], told["runs"], told["pages"], told["expected"]) == ("FINISHED", names, names, 2)
    assert told["down"] == names[::-1]
    assert told["some"] == names[1:]
    assert told["best"] == {"lr": 2}
    assert told["agents"] == [names]
    assert told["newest"] == job.sweep
    assert told["created"].endswith("Z")


def test_pause_resume_stop_button_and_cancel(server: Server, trainer: Callable[..., Trainer]) -> None:
    job = trainer(1, 2, 3)
    agent = job.agent()
    wait_until(lambda: job.trains(1))
    job.wandb("sweep", "--pause", job.path)
    asked = server.counts["Heartbeat"]
    job.end(1)
    wait_until(lambda: job.states() == ["finished"] and server.counts["Heartbeat"] > asked + 3)
    assert job.states() == ["finished"], "a paused sweep hands nothing out"
    job.wandb("sweep", "--resume", job.path)
    wait_until(lambda: job.trains(2))
    server.stop_run(server.sweep(job.sweep).runs[1].id)
    wait_until(lambda: job.trains(3))
    assert job.states() == ["finished", "killed", "running"]
    job.wandb("sweep", "--cancel", job.path)
    assert agent.wait(timeout=120) == 0
    assert (job.states()[-1], server.sweep(job.sweep).state) == ("killed", "CANCELED")


def test_a_stopped_sweep_lets_runs_end(server: Server, trainer: Callable[..., Trainer]) -> None:
    job, agent = trainer(1, 2), Agent("an agent", "", "here")
    agent.sweep = job.sweep
    with server.store.lock:
        (command,) = heartbeat(server.store, agent, set())
        run = server.store.find_run(command["run_id"])
        run.state = "running"
    job.wandb("sweep", "--stop", job.path)
    with server.store.lock:
        assert heartbeat(server.store, agent, {run.id}) == []
        run.state = "finished"
        assert heartbeat(server.store, agent, set()) == [{"type": "exit"}]
    with server.store.lock:
        upsert_sweep(server.store, {"id": job.sweep, "state": "RUNNING"})
        (command,) = heartbeat(server.store, agent, set())
        assert command["args"] == {"lr": {"value": 2}}
