"""Runs a sweep of a W&B server with W&B's own agents (`wandb agent`), each a process with its GPU, until it is done.

W&B's server decides which run is next, so that any number of machines can work on one sweep. Each agent starts
`python agent.py --key=value ...` (wandb_trial.py) for a run. This process starts the agents, passes signals on, and
shows how the runs go.
"""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from finetune.errors import EXIT_FAILED
from finetune.sweep.agents import launch
from finetune.sweep.agents.training_api import AgentOptions, TrainingApi
from finetune.sweep.agents.wandb_preparation import prepare_inputs, store_sweep
from finetune.sweep.display import console, count_noun, show_causes
from finetune.sweep.progress import RunDirWatcher
from finetune.system import signals
from finetune.system.atomic import WriteError
from finetune.system.signals import ReceivedSignals, counting_signals
from finetune.tracking import sweep_server, wandb_exit
from finetune.tracking.sweep_server import FailedWandbRun, WandbError, WandbSweep

POLL_SECONDS = 0.5
IDLE_SECONDS = 90.0  # without a run for so long, ask the server whether the sweep is over


def show_plan(sweep: WandbSweep) -> None:
    """Print the state of a sweep on the server, which alone decides which run is next."""
    total = f" of {sweep.expected}" if sweep.expected else ""
    counts = _format_counts(sweep_server.count_states(sweep), "none yet")
    console.print(f"{sweep.url or sweep.path}: {sweep.state.lower()}; runs: {counts}{total}")


def run_online(sweep: WandbSweep, training: TrainingApi, options: AgentOptions) -> int:
    """Run the pending runs of a sweep; return the exit code: 0, 1 if a run failed, 130 or 143 after a signal."""
    if sweep.state not in sweep_server.OPEN_STATES:
        console.print(f"{sweep.url or sweep.path} is {sweep.state.lower()}: nothing to do")
        console.print(f"compare the runs with: make analysis SWEEP={sweep.path}")
        return 0
    supervisor = AgentSupervisor(sweep, store_sweep(sweep), sweep.expected)
    agents = count_noun(options.agents, "agent")
    console.print(f"{sweep.url or sweep.path}: {sweep.state.lower()}, {agents}; runs go to {supervisor.folder}")
    prepare_inputs(sweep, training)
    with counting_signals() as stop, supervisor.watcher:
        for slot, count in enumerate(_run_counts(options)):
            command = _agent_command(sweep, count, options.max_failures)
            process = launch.start_process(command, slot, options.agents, supervisor.folder)
            supervisor.processes.append(process)
        supervisor.wait(stop)
    crashed = [slot for slot, process in enumerate(supervisor.processes) if process.returncode]
    if not crashed or stop.count:
        return supervisor.show_end(stop)
    for slot in crashed:
        console.print(f"agent {slot + 1} could not go on: {_last_line(supervisor.folder / f'agent-{slot + 1}.txt')}")
    supervisor.show_end(stop)
    return EXIT_FAILED


def _run_counts(options: AgentOptions) -> list[int | None]:
    """Return how many runs each agent may start, None for no limit, without agents that may start none."""
    if options.count is None:
        return [None] * options.agents
    share, rest = divmod(options.count, options.agents)
    return [share + (slot < rest) for slot in range(options.agents) if share + (slot < rest)]


def _agent_command(sweep: WandbSweep, count: int | None, max_failures: int) -> list[str]:
    options = ["--forward-signals"]
    options += ["--count", str(count)] if count else []
    options += ["--max-consecutive-failed-runs", str(max_failures)] if max_failures else []
    return [sys.executable, "-m", "finetune.tracking.wandb_cli", *options, sweep.path]


def retry_failed(sweep: WandbSweep, training: TrainingApi, options: AgentOptions) -> int:
    """Start the failed and crashed runs of a sweep again, each under its own id; return the exit code as above."""
    folder = store_sweep(sweep)
    failed = sweep_server.failed_runs(sweep)[: options.count]
    supervisor = AgentSupervisor(sweep, folder, None)
    runs = "run" if len(failed) == 1 else "runs"
    console.print(f"{sweep.url or sweep.path}: {len(failed)} failed or crashed {runs} to do again")
    if not failed:
        return 0
    prepare_inputs(sweep, training)
    with counting_signals() as stop, supervisor.watcher:
        retry = _Retry(supervisor, options, failed, stop)
        retry.run()
    code = supervisor.show_end(stop)
    return code or (EXIT_FAILED if retry.disk_full or retry.finished < len(supervisor.processes) else 0)


class AgentSupervisor:
    """Watches processes of a W&B sweep, and prints how the sweep ended.

    Attributes:
        folder: of the sweep's run directories.
        watcher: a context that shows the runs' progress.
        processes: W&B's agents, or runs that were started again.
    """

    def __init__(self, sweep: WandbSweep, folder: Path, expected: int | None) -> None:
        self.sweep, self.folder = sweep, folder
        self.watcher = RunDirWatcher(folder, expected)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._states_before = sweep_server.count_states(sweep)
        self._signals_passed_on = 0

    def wait(self, stop: ReceivedSignals) -> None:
        """Return when all processes have ended, which are stopped if the sweep is over without their knowledge."""
        last_busy = time.monotonic()
        while self._alive():
            self.pass_on_signal(stop)
            if self.watcher.update():
                last_busy = time.monotonic()
            if time.monotonic() - last_busy > IDLE_SECONDS and not stop.count:
                last_busy = time.monotonic()
                if self._is_over():
                    console.print("the sweep is over on the server, which has not told the agents: ending them")
                    self._end_processes(at_once=False)
            time.sleep(POLL_SECONDS)
        self.watcher.update()

    def _alive(self) -> list[subprocess.Popen[bytes]]:
        return [process for process in self.processes if process.poll() is None]

    def _is_over(self) -> bool:
        with contextlib.suppress(WandbError):
            sweep = sweep_server.find_sweep(self.sweep.address)
            return sweep.state not in sweep_server.OPEN_STATES
        return False

    def pass_on_signal(self, stop: ReceivedSignals) -> None:
        """Pass a new signal on to the processes, which pass it on to their runs."""
        if stop.count == self._signals_passed_on:
            return
        self._signals_passed_on = stop.count
        if stop.count == 1:
            console.print("stopping: runs finish their step, save and end; the same signal again ends them at once")
        else:
            console.print("ending now")
        self._end_processes(at_once=stop.count > 1)

    def _end_processes(self, at_once: bool) -> None:
        """Ask the processes to stop, or kill them; a run whose agent is gone ends itself."""
        for process in self._alive():
            signals.kill_tree(process.pid) if at_once else process.terminate()

    def show_end(self, stop: ReceivedSignals) -> int:
        """Print how the sweep ended and the next command, and return the exit code."""
        path, states = self.sweep.path, Counter[str]()
        with contextlib.suppress(WandbError):  # of no consequence for the runs
            states = sweep_server.count_states(self.sweep)
            console.print(f"on the server: {_format_counts(states, 'no run')}")
        wandb_exit.end()
        if stop.count:
            console.print(f"stopped; go on with: make agents SWEEP={path}")
            return 128 + stop.number
        # W&B marks a run as crashed after a long silence. One that is finished here needs no retry.
        unsent = self.watcher.unsent()
        if unsent:
            runs = count_noun(len(unsent), "finished run")
            console.print(f"W&B has not got all of {runs}; to send the rest: make publish SWEEP={self.folder}")
        new_failures = sum(states[state] - self._states_before[state] for state in sweep_server.FAILED_STATES)
        is_failed = bool(self.watcher.failed()) or new_failures > len(unsent)
        if is_failed:
            self._show_failures(unsent)
            console.print(f"output of the agents: {self.folder}/agent-*.txt")
            console.print(f"failed and crashed runs are started again by: python agent.py {path} --retry-failed")
        console.print(f"compare the runs with: make analysis SWEEP={path}")
        return EXIT_FAILED if is_failed else 0

    def _show_failures(self, unsent: Collection[str]) -> None:
        """Print the failed runs by cause, and one by one those that have no directory here."""
        with contextlib.suppress(WandbError):
            failed = [run for run in sweep_server.failed_runs(self.sweep) if run.id not in unsent]
            here = {file.stem.removeprefix("wandb-") for file in self.folder.glob("*/wandb-*.json")}
            for run in failed:
                if run.id not in here:
                    console.print(f"{run.id} failed: {run.reason}")
            show_causes([(run.id, run.cause) for run in failed])


@dataclass
class _Retry:
    """Failed runs that are started again, as many side by side as there are slots."""

    supervisor: AgentSupervisor
    options: AgentOptions
    waiting: list[FailedWandbRun]  # runs that have not been started
    stop: ReceivedSignals
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)  # slot -> the process of the run in it
    finished: int = 0  # number of runs that finished
    failures: int = 0  # number of failures since a run last finished
    disk_full: bool = False  # whether the disk had no room for a run's parameters

    def run(self) -> None:
        """Start all runs, and return when the last one has ended."""
        while (self.waiting and not self.stop.count) or self.running:
            for slot, process in list(self.running.items()):
                if process.poll() is not None:
                    del self.running[slot]
                    self._count_end(process.returncode)
            for slot in range(self.options.agents):
                if self.waiting and not self.stop.count and slot not in self.running:
                    self._start(slot)
            self.supervisor.pass_on_signal(self.stop)
            self.supervisor.watcher.update()
            time.sleep(POLL_SECONDS)

    def _count_end(self, code: int) -> None:
        if code:
            self.failures += 1
        else:
            self.failures, self.finished = 0, self.finished + 1
        if 0 < self.options.max_failures <= self.failures and self.waiting:
            console.print(f"{self.failures} runs failed in a row: no more are started")
            self.waiting.clear()

    def _start(self, slot: int) -> None:
        supervisor = self.supervisor
        try:
            run = self.waiting.pop(0)
            process = launch.restart_run(supervisor.sweep, run, slot, self.options.agents, supervisor.folder)
        except WriteError as error:  # the runs under way go on: they may have room enough
            self.disk_full = True
            console.print(f"WriteError: {error}; no more runs are started")
            self.waiting.clear()
        else:
            self.running[slot] = process
            supervisor.processes.append(process)


def _format_counts(states: Counter[str], empty: str) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or empty


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
