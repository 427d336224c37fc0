"""The loop of an agent that needs no server: take the next run that is to do, start its process, tell how it went.

Which runs are left is read from the run directories before each start, and the run's own process claims its
directory; so any number of agents, on any number of machines that share the folder, work side by side.
"""

import contextlib
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext

from finetune.config import Config
from finetune.errors import EXIT_FAILED
from finetune.rundir import keys
from finetune.sweep import display, early_stopping, folder_checks, plan, progress, racing, search
from finetune.sweep.agents import fork_server, run_process
from finetune.sweep.agents.run_process import RunProcess
from finetune.sweep.agents.training_api import TrainingApi
from finetune.sweep.forecast import report
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents
from finetune.system.atomic import WriteError
from finetune.system.signals import StopRequests, counting_signals

POLL_SECONDS = 0.2


@dataclass
class AgentState:
    """What this agent has been asked to do, and what it has done so far.

    Attributes:
        agents: how many runs go side by side.
        count: how many runs to start at most.
        max_failures: so many failures in a row, and no more runs are started; 0 for no limit.
        running: slot -> the run in it and its process.
        tried: ids of the runs it need not look at again.
        broken: ids of the runs that failed or were killed in its hands -> cause.
        finished: id -> seconds of the runs that it has finished.
        started: how many runs it has started that no other agent had.
        in_a_row: the failures since a run was last finished; a run that diverged is a result, not one of these.
        gave_up: whether there were too many, or `fault`.
        fault: why what is kept beside the runs can't be written; empty where it can.
    """

    todo: SweepPlan
    code: TrainingApi
    agents: int
    count: int | None
    retry_failed: bool
    max_failures: int
    running: dict[int, tuple[PlannedRun, RunProcess]] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    started: int = 0
    in_a_row: list[display.FailedRun] = field(default_factory=list)
    gave_up: bool = False
    fault: str = ""

    def wants(self, run: PlannedRun) -> bool:
        """Whether a run is to do."""
        return plan.is_to_do(run, self.retry_failed)

    def can_start(self, run: PlannedRun) -> bool:
        """Whether a run is to do now."""
        if run.id in self.tried or not self.wants(run):
            return False
        return not self.todo.race or not racing.must_wait(self.todo, run, self.wants)

    def is_more(self) -> bool:
        """Whether there are runs to do that it has not started."""
        todo = self.todo
        return todo.points < todo.cap or any(run.id not in self.tried and self.wants(run) for run in todo.runs)

    def peers(self, run: PlannedRun) -> list[Config] | None:
        """Return the configs of the runs that are not finished yet, `run` among them, or None if more may come.

        Failed runs that are not to be tried again are left out.
        """
        if self.todo.points < self.todo.cap:
            return None
        return [
            other.config
            for other in _likely(self.todo, self.retry_failed)
            if other is run or plan.state_of(other)[0] == "running" or self.wants(other)
        ]

    def has_room(self) -> bool:
        """Whether one more run may be started now."""
        more = not self.gave_up and (self.count is None or self.started < self.count)
        return more and len(self.running) < self.agents


def run_sweep(
    todo: SweepPlan,
    code: TrainingApi,
    agents: int = 1,
    count: int | None = None,
    retry_failed: bool = False,
    max_failures: int = 5,
) -> int:
    """Run what is left of a sweep and return the exit code: 0, 1 if a run failed, 130 or 143 after a signal.

    Args:
        agents: how many runs go side by side.
        count: how many runs to start at most.
        retry_failed: start those again that failed before.
        max_failures: start no more after so many failures in a row, which have one cause, most likely; 0: never mind.

    Raises:
        UserError: the sweep's folder holds runs on other data or from other weights, or weights are not to be had;
            nothing was started.
    """
    folder_checks.require_same_inputs(todo)
    folder_checks.clean_folder(todo)
    folder_checks.quarantine_damaged_runs(todo)
    display.show_start(todo, retry_failed)
    session = AgentState(todo, code, agents, count, retry_failed, max_failures)
    wanted = sum(session.wants(run) for run in _likely(todo, retry_failed))
    if wanted or todo.cap > todo.points:
        code.prepare(todo.to_prepare)
        plan.store_plan(todo)
        expected = expect(todo, code, agents, count, retry_failed)
        if expected is not None:
            report.show(expected)
            report.start(todo.sweep.folder, expected)
        context = fork_server.start_server(code.preload)
        began = time.monotonic()
        with counting_signals() as stop, progress.reporting(todo, agents, wanted, _pace(expected)) as shown:
            _loop(session, stop, shown, context)
        if expected is not None:
            report.end(todo.sweep.folder, expected, time.monotonic() - began, session.finished, todo.race)
        if stop.count:
            display.show_end(todo, session.broken, stopped=True)
            return 128 + stop.signal
    gave_up = session.in_a_row if session.gave_up and not session.fault and session.is_more() else []
    failed = display.show_end(todo, session.broken, gave_up=gave_up)
    return EXIT_FAILED if failed or session.fault else 0


def expect(
    todo: SweepPlan, code: TrainingApi, agents: int, count: int | None = None, retry_failed: bool = False
) -> SweepForecast | None:
    """Return what the runs that are to do will take, or None where that can't be told, or they are few.

    Args:
        agents, count, retry_failed: see `run_sweep`.
    """
    runs = [run for run in _likely(todo, retry_failed) if plan.is_to_do(run, retry_failed)][:count]
    unknown = max(todo.cap - todo.points, 0)
    if count is not None:
        unknown = min(unknown, count - len(runs))
    return code.expect(todo, runs, unknown, agents, display.console.print)


def _likely(todo: SweepPlan, retry_failed: bool) -> list[PlannedRun]:
    """Return the runs to reckon with."""
    return racing.expected_runs(todo, lambda run: plan.is_to_do(run, retry_failed)) if todo.race else todo.runs


def _pace(expected: SweepForecast | None) -> dict[str, float]:
    """Return strategy -> seconds an epoch."""
    return {} if expected is None else {name: share.epoch_seconds for name, share in expected.strategies.items()}


def _loop(session: AgentState, stop: StopRequests, shown: progress.RunReporter, context: ForkServerContext) -> None:
    """Keep the slots filled until nothing is left, or a signal came and the last run has ended."""
    handled = 0  # signals passed on
    seen: dict[str, int] = {}  # run -> size of its history when early stopping was last considered
    while True:
        while session.has_room() and not stop.count and (run := _next_if_noted(session, shown)) is not None:
            if not _start(session, shown, context, run):
                break
        if not session.running:
            return
        run_process.wait([worker for _, worker in session.running.values()], POLL_SECONDS)
        if stop.count > handled:
            handled = stop.count
            _pass_on(handled, session, shown)
        for slot, (run, worker) in list(session.running.items()):
            run_process.read_progress(worker)
            if not run_process.has_ended(worker):
                shown.running(slot, run, worker.progress)
                if early_stopping.history_has_grown(session.todo, run, seen):
                    with contextlib.suppress(WriteError):  # the run goes on, then, to its last epoch
                        early_stopping.stop_if_lagging(session.todo, run)
            else:
                _ended(session, stop, shown, slot)


def _start(session: AgentState, shown: progress.RunReporter, context: ForkServerContext, run: PlannedRun) -> bool:
    """Start the process of a run in the first free slot; return False, and give up, where this machine has none left.

    The runs under way go on: they have theirs.
    """
    slot = min(set(range(session.agents)) - session.running.keys())
    peers = session.peers(run)
    try:
        worker = run_process.start(context, session.code.run, run.config, run.directory, slot, session.agents, peers)
    except (OSError, EOFError) as error:
        why = str(error) or type(error).__name__
        session.gave_up = True
        session.fault = f"no process can be started for {run.id} ({why}): see `ulimit -u` and what memory is free"
        shown.say(f"{session.fault}; no more runs are started")
        return False
    session.running[slot] = run, worker
    session.tried.add(run.id)
    session.started += 1
    shown.started(slot, run)
    return True


def _pass_on(signals: int, session: AgentState, shown: progress.RunReporter) -> None:
    """Tell the runs of the signals the agent has received."""
    first = signals == 1
    shown.say("stopping: runs save and end; the same signal again ends them at once" if first else "ending now")
    for _, worker in session.running.values():
        run_process.terminate(worker) if first else run_process.kill(worker)


def _next(session: AgentState, shown: progress.RunReporter) -> PlannedRun | None:
    """Return the next run to start; a Bayesian search is asked for more once all it has asked for are taken."""
    todo = session.todo
    while True:
        if todo.cap:
            plan.add_trials(todo)
        if todo.race and (told := racing.drop_losing_recipes(todo, session.wants)):
            plan.store_runs(todo)
            for line in told:
                shown.say(line)
        run = next(filter(session.can_start, todo.runs), None)
        if run is not None:
            return run
        if todo.points >= todo.cap:
            return None
        _propose(todo)


def _next_if_noted(session: AgentState, shown: progress.RunReporter) -> PlannedRun | None:
    """Return the next run to start; none once what is to be noted of it can't be written, a full disk perhaps."""
    try:
        return _next(session, shown)
    except WriteError as error:  # the runs under way go on: they may have room enough
        session.gave_up, session.fault = True, f"{type(error).__name__}: {error}"
        shown.say(f"{session.fault}; no more runs are started")
        return None


def _propose(todo: SweepPlan) -> None:
    """Ask the search for one more point, given all that is known of the runs, and note it for all agents."""
    folder, spec = todo.sweep.folder, todo.sweep.spec
    number = len(plan.read_trials(folder))
    trials = [search.ObservedPoint(run.id, run.point, *early_stopping.observation_of(run)) for run in todo.runs]
    plan.record_trial(folder, number, search.propose(spec, folder.name, number, trials))


def _ended(session: AgentState, stop: StopRequests, shown: progress.RunReporter, slot: int) -> None:
    """Free a slot; note and tell how its run ended."""
    run, worker = session.running.pop(slot)
    ended = run_process.outcome(worker)
    if ended.state == "taken":
        session.started -= 1
    elif ended.state == "finished":
        session.finished[run.id] = time.monotonic() - worker.started
    elif not (ended.state == "killed" and stop.count):
        session.broken[run.id] = ended.cause
    shown.ended(slot, run, ended.state, ended.reason, documents.read_json_or_empty(run.directory / keys.SUMMARY))
    if session.gave_up or stop.count:
        return
    if ended.state == "finished":
        session.in_a_row.clear()
    elif ended.cause not in ("", "divergence"):
        session.in_a_row.append(display.FailedRun(run, ended.reason))
    if 0 < session.max_failures <= len(session.in_a_row):
        session.gave_up = True
        shown.say(f"{session.max_failures} runs failed in a row: no more are started")
