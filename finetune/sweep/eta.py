"""Estimated time left of a sweep, from how long the epochs of each strategy have taken so far."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetune.rundir import keys
from finetune.sweep.plan import PlannedRun, SweepPlan, state_of
from finetune.sweep.racing import expected_runs
from finetune.system import documents

MIN_EPOCHS = 0.2  # of a running run, before its pace counts


def seconds_left(epochs_left: Iterable[tuple[str, float]], pace: Mapping[str, float], slots: int) -> float | None:
    """Return the wall time of some epochs in `slots` runs side by side; None while no pace is known.

    Args:
        epochs_left: (strategy, epochs left), one for each run.
        pace: strategy -> seconds an epoch; a strategy that is missing counts as the mean of the others.
    """
    if not pace:
        return None
    mean = sum(pace.values()) / len(pace)
    return sum(epochs * pace.get(strategy, mean) for strategy, epochs in epochs_left) / slots


@dataclass
class _RunningRun:
    """When a run started, the first epoch it reported (above 0 if it was resumed), and the last one."""

    started: float
    first: float | None = None
    epoch: float = 0.0


class TimeLeftEstimator:
    """Counts epochs and seconds of a sweep's runs.

    Args:
        forecast: strategy -> seconds an epoch, used until a run of the strategy has shown its pace.
    """

    def __init__(self, plan: SweepPlan, forecast: Mapping[str, float] | None = None) -> None:
        self._plan = plan
        self._running: dict[str, _RunningRun] = {}
        self._pace: dict[str, float] = dict(forecast or {})  # strategy -> seconds an epoch
        self._over: set[str] = set()
        self._expected: list[PlannedRun] = []
        for run in plan.runs:
            if state_of(run)[0] in ("finished", "failed"):
                self._note_end(run)
        self._update_expected()

    def started(self, run: PlannedRun) -> None:
        """Note that a run has been started."""
        self._running[run.id] = _RunningRun(time.monotonic())
        self._over.discard(run.id)  # a failed run that is retried
        self._update_expected()

    def progressed(self, run: PlannedRun, epoch: float) -> None:
        """Note how many epochs a run has finished."""
        running = self._running[run.id]
        running.first = epoch if running.first is None else running.first
        running.epoch = epoch
        if epoch - running.first >= MIN_EPOCHS:
            self._pace[run.config.strategy] = (time.monotonic() - running.started) / (epoch - running.first)

    def ended(self, run: PlannedRun) -> None:
        """Note that a run is over; the summary of a finished one gives its pace."""
        self._running.pop(run.id, None)
        self._note_end(run)
        self._update_expected()

    def _note_end(self, run: PlannedRun) -> None:
        self._over.add(run.id)
        summary = documents.read_json_or_empty(run.directory / keys.SUMMARY)
        if summary.get("train_seconds") and summary.get("epochs"):
            self._pace[run.config.strategy] = summary["train_seconds"] / summary["epochs"]

    def _update_expected(self) -> None:
        """Read again which runs are expected: a search adds runs, and a race drops some."""
        self._expected = list(expected_runs(self._plan, retry_failed=False))

    def left(self, slots: int) -> tuple[float, float | None]:
        """Return the share of the sweep's epochs that are done, and the seconds left, None while no pace is known."""
        typical = float(self._plan.inputs[0].epochs)  # of runs that a search has yet to choose
        unknown = [typical] * self._plan.points_left
        known: list[tuple[str, float]] = [(run.config.strategy, self._epochs_left(run)) for run in self._expected]
        left = [*known, *(("", epochs) for epochs in unknown)]
        total = sum(run.config.epochs for run in self._expected) + sum(unknown)
        return 1 - sum(epochs for _, epochs in left) / total, seconds_left(left, self._pace, slots)

    def _epochs_left(self, run: PlannedRun) -> float:
        if run.id in self._over:
            return 0.0
        running = self._running.get(run.id)
        return run.config.epochs - (running.epoch if running else 0.0)
