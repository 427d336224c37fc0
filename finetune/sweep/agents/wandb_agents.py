"""Agents of a sweep on a W&B server: W&B's own agents (`wandb agent`) as processes, each on its GPU, until it is done.

W&B's server decides which run is next, so that any number of machines can work on one sweep. Each agent starts
`python agent.py --key=value ...` (wandb_trial.py) for a run. This process watches, passes signals on, tells how runs
went.
"""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from finetune.config import Config, parse_config
from finetune.errors import EXIT_FAILED, UserError
from finetune.resolve import resolve, with_absolute_paths
from finetune.rundir import keys
from finetune.sweep import devices, search
from finetune.sweep.agents import launch
from finetune.sweep.agents.training_api import TrainingApi
from finetune.sweep.display import console, show_causes
from finetune.sweep.progress import RunDirWatcher
from finetune.sweep.sweep_file import RUNS
from finetune.system import documents, signals
from finetune.system.atomic import WriteError, raising_write_error, write_atomic
from finetune.system.environment import ROOT
from finetune.system.redaction import redact_values
from finetune.system.signals import StopRequests, counting_signals
from finetune.tracking import sweep_server, wandb_exit
from finetune.tracking.sweep_server import WandbError, WandbSweep

POLL_SECONDS = 0.5
IDLE_SECONDS = 90.0  # an agent without a run for so long: is the sweep over, and the server has not told the agent?


@dataclass
class WandbAgents:
    """The processes of W&B's agents, or of runs that are started again."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Return those that have not ended."""
        return [process for process in self.processes if process.poll() is None]


def run_online(remote: WandbSweep, code: TrainingApi, agents: int | None, count: int | None, max_failures: int) -> int:
    """Run what is left of a sweep on the server; return the exit code: 0, 1 if a run failed, 130 or 143 after a signal.

    Args:
        agents: how many runs go side by side (default: one for each GPU).
        count: how many runs to start at most.
        max_failures: so many failed runs in a row end an agent; 0 for no limit.
    """
    if remote.state not in sweep_server.OPEN_STATES:
        console.print(f"{remote.url or remote.path} is {remote.state.lower()}: nothing to do")
        console.print(f"compare the runs with: make analysis SWEEP={remote.path}")
        return 0
    slots = agents or devices.slots()
    folder = _store(remote)
    watch, before = RunDirWatcher(folder, remote.expected), sweep_server.count_states(remote)
    noun = "agents" if slots > 1 else "agent"
    watch.say(f"{remote.url or remote.path}: {remote.state.lower()}, {slots} {noun}; runs go to {folder}")
    _prepare(remote, code, watch)
    started = WandbAgents()
    with counting_signals() as stop, watch:
        for slot, share in enumerate(_shares(count, slots)):
            options = ["--forward-signals"]
            options += ["--count", str(share)] if share else []
            options += ["--max-consecutive-failed-runs", str(max_failures)] if max_failures else []
            command = [sys.executable, "-m", "finetune.sweep.agents.wandb_cli", *options, remote.path]
            started.processes.append(launch.start(command, slot, slots, folder))
        _wait(started, stop, watch, remote)
        crashed = [slot for slot, process in enumerate(started.processes) if process.returncode]
    if crashed and not stop.count:
        for slot in crashed:
            watch.say(f"agent {slot + 1} could not go on: {_last_line(folder / f'agent-{slot + 1}.txt')}")
        _end(remote, folder, watch, stop, before)
        return EXIT_FAILED
    return _end(remote, folder, watch, stop, before)


def retry_failed(
    remote: WandbSweep, code: TrainingApi, agents: int | None, count: int | None, max_failures: int
) -> int:
    """Run the failed and crashed runs of a sweep again, each under its own id; return the exit code as above.

    W&B never hands them out again. So they are started from here, with what W&B's agent would have given them.
    """
    slots = agents or devices.slots()
    folder = _store(remote)
    todo = sweep_server.failed_runs(remote)[:count]
    watch, before = RunDirWatcher(folder, None), sweep_server.count_states(remote)
    noun = "run" if len(todo) == 1 else "runs"
    watch.say(f"{remote.url or remote.path}: {len(todo)} failed or crashed {noun} to do again")
    if not todo:
        return 0
    _prepare(remote, code, watch)
    running: dict[int, subprocess.Popen[bytes]] = {}
    all_of_them = WandbAgents()
    in_a_row = finished = handled = 0
    full = False
    with counting_signals() as stop, watch:
        while (todo and not stop.count) or running:
            for slot, process in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    in_a_row, finished = (in_a_row + 1, finished) if process.returncode else (0, finished + 1)
                    if 0 < max_failures <= in_a_row and todo:
                        watch.say(f"{in_a_row} runs failed in a row: no more are started")
                        todo.clear()
            for slot in range(slots):
                if todo and not stop.count and slot not in running:
                    try:
                        running[slot] = launch.start_again(remote, todo.pop(0), slot, slots, folder)
                    except WriteError as error:  # the runs under way go on: they may have room enough
                        full = True
                        watch.say(f"WriteError: {error}; no more runs are started")
                        todo.clear()
                    else:
                        all_of_them.processes.append(running[slot])
            handled = _pass_on(all_of_them, stop, handled, watch)
            watch.look()
            time.sleep(POLL_SECONDS)
    code_of_end = _end(remote, folder, watch, stop, before)
    return code_of_end or (EXIT_FAILED if full or finished < len(all_of_them.processes) else 0)


def show_plan(remote: WandbSweep) -> None:
    """Print how a sweep on the server stands; which run is next is for the server to say."""
    states = sweep_server.count_states(remote)
    total = f" of {remote.expected}" if remote.expected else ""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet"
    console.print(f"{remote.url or remote.path}: {remote.state.lower()}; runs: {counts}{total}")


def fetch_sweep(remote: WandbSweep, code: TrainingApi) -> None:
    """Have what the sweep's runs need, and can be fetched, on this machine; another program's runs know it themselves.

    Raises:
        UserError: it can't be had. A run that went without would fail, and W&B never hands it out again.
    """
    program = remote.spec.get("program")
    if program is None or Path(str(program)).resolve() == Path(sys.argv[0]).resolve():
        code.bring(_configs(remote), True)


def _prepare(remote: WandbSweep, code: TrainingApi, watch: RunDirWatcher) -> None:
    """Have data and weights here before runs start side by side. What is wrong with a config its run will tell."""
    fetch_sweep(remote, code)
    configs: list[Config] = []
    try:
        for config in _configs(remote):
            with contextlib.suppress(UserError):
                if (config.backbone, config.weights) not in {(known.backbone, known.weights) for known in configs}:
                    code.identify(config)
                    configs.append(config)
        code.prepare(configs)
    except Exception as error:  # whatever it is, the runs will meet it and say so, each in its own log
        watch.say(f"not prepared: {error}")


def _configs(remote: WandbSweep) -> list[Config]:
    """Return the configs of a sweep, or some from all over the space that it searches; faulty ones are left out."""
    spec, configs = remote.spec, []
    try:
        points = search.grid(spec) if spec["method"] == "grid" else search.probes(spec, remote.id)
    except Exception:  # the engine's own, of many kinds; W&B's server knows how it reads this file
        return []
    for point in points:
        with contextlib.suppress(UserError):
            configs.append(with_absolute_paths(resolve(parse_config(point, "the sweep"))))
    return configs


def _store(remote: WandbSweep) -> Path:
    """Note the sweep, and where it lies, beside its run directories; return their folder.

    Raises:
        UserError: the sweep's program is not here: each of its runs would be used up by an agent that can't start it;
            or a parameter holds a secret, which W&B's agent would write into files and logs.
    """
    program = remote.spec.get("program")
    if program and not Path(str(program)).is_file():
        raise UserError(f"{remote.path} runs {program}, and there is none in {Path.cwd()}: start this in {ROOT}")
    kept = redact_values(remote.spec)  # what runs are started with stays in memory
    parameters = remote.spec.get("parameters") or {}
    secret = [name for name, given in parameters.items() if redact_values(given) != given]
    if secret:
        raise UserError(
            f"{remote.path}: a password, token or key is in {', '.join(secret)}, where W&B and its agents tell it: "
            "renew it, and make a sweep without it"
        )
    folder = RUNS / remote.id
    with raising_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / keys.SWEEP, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
    names = {"entity": remote.entity, "project": remote.project, "sweep": remote.id, "url": remote.url}
    documents.write_json(folder / keys.REMOTE, names)
    return folder


def _shares(count: int | None, slots: int) -> list[int | None]:
    """Return how many runs each agent may start, agents that may start none left out."""
    if count is None:
        return [None] * slots
    shares = [count // slots + (slot < count % slots) for slot in range(slots)]
    return [share for share in shares if share]


def _wait(agents: WandbAgents, stop: StopRequests, watch: RunDirWatcher, remote: WandbSweep) -> None:
    """Return when all agents have ended."""
    handled, looked = 0, time.monotonic()
    while agents.alive():
        handled = _pass_on(agents, stop, handled, watch)
        if watch.look():
            looked = time.monotonic()
        if time.monotonic() - looked > IDLE_SECONDS and not stop.count:
            looked = time.monotonic()
            if _is_over(remote):
                watch.say("the sweep is over on the server, which has not told the agents: ending them")
                _signal(agents, first=True)
        time.sleep(POLL_SECONDS)
    watch.look()


def _is_over(remote: WandbSweep) -> bool:
    with contextlib.suppress(WandbError):
        return sweep_server.find_sweep(remote.path, remote.project).state not in sweep_server.OPEN_STATES
    return False


def _pass_on(agents: WandbAgents, stop: StopRequests, handled: int, watch: RunDirWatcher) -> int:
    """Pass new signals on to the agents, which pass them on to their runs; return how many have been handled."""
    if stop.count > handled:
        watch.say(
            "stopping: runs finish their step, save and end; the same signal again ends them at once"
            if stop.count == 1
            else "ending now"
        )
        _signal(agents, first=stop.count == 1)
        return stop.count
    return handled


def _signal(agents: WandbAgents, first: bool) -> None:
    """Ask the agents to stop, or kill them; without its agent, a run ends itself."""
    for process in agents.alive():
        process.terminate() if first else signals.kill_tree(process.pid)


def _end(remote: WandbSweep, folder: Path, watch: RunDirWatcher, stop: StopRequests, before: Counter[str]) -> int:
    """Tell how it went and what to type next, and return the exit code.

    Args:
        before: how many runs of the sweep were in which state when this began.
    """
    states = Counter[str]()
    with contextlib.suppress(WandbError):  # it is of no consequence for the runs
        states = sweep_server.count_states(remote)
        watch.say(
            "on the server: " + (", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no run")
        )
    wandb_exit.end()
    if stop.count:
        watch.say(f"stopped; go on with: make agents SWEEP={remote.path}")
        return 128 + stop.signal
    # W&B takes a run for crashed that it hears no more of. One that is finished here is not lost, and needs no retry.
    unsent = watch.unsent()
    if unsent:
        runs = f"{len(unsent)} finished run{'s' * (len(unsent) > 1)}"
        watch.say(f"W&B has not got all of {runs}; to send the rest: make publish SWEEP={folder}")
    broken = sum(states[state] - before[state] for state in sweep_server.FAILED_STATES)
    failed = bool(watch.failed()) or broken > len(unsent)
    if failed:
        _tell_failures(remote, folder, unsent)
        watch.say(f"what the agents said: {folder}/agent-*.txt")
        watch.say(f"failed and crashed runs are started again by: python agent.py {remote.path} --retry-failed")
    watch.say(f"compare the runs with: make analysis SWEEP={remote.path}")
    return EXIT_FAILED if failed else 0


def _tell_failures(remote: WandbSweep, folder: Path, unsent: Collection[str]) -> None:
    """Print the failed runs by cause, and those that have left no directory one by one; not those that are `unsent`."""
    with contextlib.suppress(WandbError):
        failed = [run for run in sweep_server.failed_runs(remote) if run.id not in unsent]
        here = {file.stem.removeprefix("wandb-") for file in folder.glob("*/wandb-*.json")}
        for run in failed:
            if run.id not in here:
                console.print(f"{run.id} failed: {run.reason}")
        show_causes([(run.id, run.cause) for run in failed])


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
