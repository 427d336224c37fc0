"""The agent of a sweep without a server: take the next pending run, start its process, report how it ended.

Which runs are left is read from the run directories before each start, and each run's own process claims its
directory. So any number of agents, on any number of machines that share the folder, can work side by side.
"""

import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext

from finetune.config import Config
from finetune.errors import EXIT_FAILED, SearchError
from finetune.sweep import devices, display, early_stopping, folder_checks, racing, search
from finetune.sweep.agents import fork_server, run_process
from finetune.sweep.agents.run_main import RunProcessArgs
from finetune.sweep.agents.run_process import RunProcess
from finetune.sweep.agents.training_api import AgentOptions, TrainingApi
from finetune.sweep.display import FailedRun, console
from finetune.sweep.forecast import report
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan, add_trials, is_pending, state_of, store_plan, store_runs
from finetune.sweep.progress import RunReporter
from finetune.sweep.trials import is_being_written, read_trials, record_trial
from finetune.system.atomic import WriteError
from finetune.system.signals import ReceivedSignals, counting_signals

POLL_SECONDS = 0.2


def run_sweep(plan: SweepPlan, training: TrainingApi, options: AgentOptions) -> int:
    """Run the pending runs of a sweep and return the exit code: 0, 1 if a run failed, 130 or 143 after a signal.

    Raises:
        UserError: the sweep's folder holds runs on other data or from other weights, or weights are missing; nothing
            was started.
    """
    folder_checks.require_same_sweep(plan)
    folder_checks.require_same_inputs(plan)
    folder_checks.clean_folder(plan)
    folder_checks.quarantine_damaged_runs(plan)
    display.show_start(plan, options.retry_failed)
    pending = len(_pending_runs(plan, options))
    if not pending and not plan.points_left:
        return EXIT_FAILED if display.show_end(plan, {}) else 0
    training.check_inputs(plan.inputs)
    store_plan(plan)
    forecast = forecast_runs(plan, training, options)
    if forecast is not None:
        report.show(forecast)
        report.store(plan.sweep.folder, forecast)
    context = fork_server.start_server(training.preload)
    start = time.monotonic()
    epoch_seconds = forecast.epoch_seconds if forecast is not None else {}
    with counting_signals() as stop, RunReporter(plan, options.agents, pending, epoch_seconds) as reporter:
        agent = LocalAgent(plan, training, options, reporter, stop)
        agent.run(context)
    if forecast is not None:
        report.compare(plan.sweep.folder, forecast, time.monotonic() - start, agent.seconds, plan.race)
    return agent.show_end()


def forecast_runs(plan: SweepPlan, training: TrainingApi, options: AgentOptions) -> SweepForecast | None:
    """Return the forecast of the runs that an agent would start, None if there is none or they are few."""
    runs = _pending_runs(plan, options)[: options.count]
    unknown = plan.points_left
    if options.count is not None:
        unknown = min(unknown, options.count - len(runs))
    return training.forecast(plan, runs, unknown, options.agents)


def _pending_runs(plan: SweepPlan, options: AgentOptions) -> list[PlannedRun]:
    """Return the runs that are expected to be started."""
    expected = racing.expected_runs(plan, options.retry_failed)
    return [run for run in expected if is_pending(run, options.retry_failed)]


@dataclass
class LocalAgent:
    """An agent and the state of its runs.

    Attributes:
        running: slot -> the run in it and its process.
        tried: ids of the runs that this agent does not start again.
        causes: id -> cause, of the runs that failed or were killed while this agent ran them.
        seconds: id -> seconds, of the runs that this agent has finished.
        started: number of runs started, without those that another agent turned out to run.
        failures: failures since a run last finished; a run that diverged is a result, and none of these.
        fault: why the agent can't start runs (no process, no room on the disk); empty if it can.
        waits_for_trial: whether the next run depends on a trial that another agent is writing.
        search_fault: why the search engine can't propose or stop runs; empty if it can.
    """

    plan: SweepPlan
    training: TrainingApi
    options: AgentOptions
    reporter: RunReporter
    stop: ReceivedSignals
    running: dict[int, tuple[PlannedRun, RunProcess]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    causes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    started: int = 0
    failures: list[FailedRun] = field(default_factory=list)
    fault: str = ""
    waits_for_trial: bool = False
    search_fault: str = ""

    @property
    def gave_up(self) -> bool:
        """Whether this agent starts no more runs."""
        return bool(self.fault) or self._has_failed_too_often()

    def _has_failed_too_often(self) -> bool:
        return 0 < self.options.max_failures <= len(self.failures)

    def run(self, context: ForkServerContext) -> None:
        """Keep the slots filled until no run is left, or a signal came and the last run has ended."""
        passed_on = 0  # signals
        history_sizes: dict[str, int] = {}
        while True:
            self._fill_slots(context)
            if not self.running and (self.stop.count or not self.waits_for_trial):
                return
            run_process.wait([process for _, process in self.running.values()], POLL_SECONDS)
            if self.stop.count > passed_on:
                passed_on = self.stop.count
                self._pass_on_signal()
            for slot, (run, process) in list(self.running.items()):
                process.read_progress()
                if process.has_ended():
                    self._note_end(slot)
                    continue
                self.reporter.progressed(slot, run, process.progress)
                if not self.search_fault and early_stopping.history_has_grown(self.plan, run, history_sizes):
                    self._stop_if_lagging(run)

    def _stop_if_lagging(self, run: PlannedRun) -> None:
        """Let hyperband stop a run. Where that is not possible, runs train to their last epoch."""
        try:
            early_stopping.stop_if_lagging(self.plan, run)
        except WriteError:
            pass
        except SearchError as error:
            self._note_search_fault(f"{error}: no run is stopped early any more")

    def _note_search_fault(self, fault: str) -> None:
        """Note that the search can't go on; runs under way, and those that are known, can."""
        self.search_fault = fault
        console.print(fault)

    def show_end(self) -> int:
        """Print how the sweep ended and return the exit code."""
        if self.search_fault:
            console.print(self.search_fault)
        if self.stop.count:
            display.show_end(self.plan, self.causes, stopped=True)
            return 128 + self.stop.number
        is_left = self.plan.points_left or any(self._is_startable(run) for run in self.plan.runs)
        failures = self.failures if self.gave_up and not self.fault and is_left else []
        failed = display.show_end(self.plan, self.causes, gave_up=failures)
        return EXIT_FAILED if failed or self.fault or self.search_fault else 0

    def _fill_slots(self, context: ForkServerContext) -> None:
        self.waits_for_trial = False
        while self._may_start() and (run := self._next_run()) is not None:
            self._start(context, run)

    def _may_start(self) -> bool:
        is_allowed = self.options.count is None or self.started < self.options.count
        return is_allowed and not self.gave_up and not self.stop.count and len(self.running) < self.options.agents

    def _next_run(self) -> PlannedRun | None:
        """Return the next run to start now, None if there is none."""
        try:
            while True:
                waiting = self._update_plan()
                run = next((run for run in self.plan.runs if run.id not in waiting and self._is_startable(run)), None)
                if run is not None or self.stop.count or not self._may_propose() or not self._propose():
                    return run
        except SearchError as error:
            self._note_search_fault(f"{error}: no further run is proposed")
            return None
        except WriteError as error:  # the runs under way go on: they may have room enough
            self._give_up(f"{type(error).__name__}: {error}")
            return None

    def _is_startable(self, run: PlannedRun) -> bool:
        return run.id not in self.tried and is_pending(run, self.options.retry_failed)

    def _update_plan(self) -> set[str]:
        """Add new trials to the plan, remove the losers of a race; return the ids of runs that must wait."""
        if self.plan.cap:
            for fault in add_trials(self.plan):
                console.print(f"the search proposed a point that is no valid config: {fault}")
            store_runs(self.plan)
        if not self.plan.race:
            return set()
        lines = racing.drop_losing_recipes(self.plan, self.options.retry_failed)
        if lines:
            store_runs(self.plan)
        for line in lines:
            console.print(line)
        return racing.waiting_runs(self.plan, self.options.retry_failed)

    def _may_propose(self) -> bool:
        return self.plan.points_left > 0 and not self.search_fault

    def _propose(self) -> bool:
        """Record one more point of the search for all agents; return False while another agent is doing so."""
        folder, spec = self.plan.sweep.folder, self.plan.sweep.spec
        number = len(read_trials(folder))
        self.waits_for_trial = is_being_written(folder, number)
        if not self.waits_for_trial:
            point = search.propose_point(spec, folder.name, number, early_stopping.observations(self.plan))
            record_trial(folder, number, point)
        return not self.waits_for_trial

    def _start(self, context: ForkServerContext, run: PlannedRun) -> None:
        """Start the process of a run in the first free slot; give up if this machine can't start one.

        The runs under way go on, as they have their processes.
        """
        agents = self.options.agents
        slot = min(set(range(agents)) - self.running.keys())
        threads, gpu = devices.threads_per_run(agents), devices.gpu_of(slot)
        args = RunProcessArgs(self.training.run, run.config, run.directory.resolve(), threads, gpu, self._peers(run))
        try:
            process = run_process.start(context, args)
        except (OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
            self._give_up(f"no process can be started for {run.id} ({reason}): check `ulimit -u` and the free memory")
            return
        self.running[slot] = run, process
        self.tried.add(run.id)
        self.started += 1
        self.reporter.started(slot, run)

    def _peers(self, run: PlannedRun) -> list[Config] | None:
        """Return the configs of the unfinished runs, `run` among them; None if a search may add more.

        Failed runs are left out unless they are retried.
        """
        if self.plan.points_left:
            return None
        return [
            other.config
            for other in racing.expected_runs(self.plan, self.options.retry_failed)
            if other is run or state_of(other)[0] == "running" or is_pending(other, self.options.retry_failed)
        ]

    def _give_up(self, fault: str) -> None:
        self.fault = fault
        console.print(f"{fault}; no more runs are started")

    def _pass_on_signal(self) -> None:
        """Stop the runs after a first signal, kill them after a second."""
        if self.stop.count == 1:
            console.print("stopping: runs save and end; the same signal again ends them at once")
        else:
            console.print("ending now")
        for _, process in self.running.values():
            process.terminate() if self.stop.count == 1 else process.kill()

    def _note_end(self, slot: int) -> None:
        """Free a slot; record and show how its run ended."""
        run, process = self.running.pop(slot)
        outcome = process.outcome()
        if outcome.state == "taken":
            self.started -= 1
        elif outcome.state == "finished":
            self.seconds[run.id] = time.monotonic() - process.started
        elif not (outcome.state == "killed" and self.stop.count):
            self.causes[run.id] = outcome.cause
        self.reporter.ended(slot, run, outcome.state, outcome.reason)
        if self.gave_up or self.stop.count:
            return
        if outcome.state == "finished":
            self.failures.clear()
        elif outcome.cause not in ("", "divergence"):
            self.failures.append(FailedRun(run, outcome.reason))
        if self._has_failed_too_often():
            console.print(f"{len(self.failures)} runs failed in a row: no more are started")
