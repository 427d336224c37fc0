"""How long a sweep still takes, from how long the epochs of each strategy have taken so far."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finetune.rundir import keys
from finetune.sweep import plan
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents


def seconds_left(epochs_left: Iterable[tuple[str, float]], pace: Mapping[str, float], slots: int) -> float | None:
    """Return the wall time for some epochs, done by `slots` runs side by side; None as long as no pace is known.

    Args:
        epochs_left: (strategy, epochs that are left), one for each run.
        pace: strategy -> seconds an epoch; a strategy not seen yet is taken for the mean of the others.
    """
    if not pace:
        return None
    mean = sum(pace.values()) / len(pace)
    return sum(epochs * pace.get(strategy, mean) for strategy, epochs in epochs_left) / slots


@dataclass
class _RunningRun:
    """A run in progress: when it started, and the first epoch it reported (a resumed run does not begin at 0)."""

    started: float
    first: float | None = None
    epoch: float = 0.0


class TimeLeftEstimator:
    """Keeps count of epochs and seconds for the estimate.

    Args:
        forecast: strategy -> seconds an epoch, which count until a run of the strategy tells better.
    """

    def __init__(self, todo: SweepPlan, forecast: Mapping[str, float] | None = None) -> None:
        self._todo = todo
        self._live: dict[str, _RunningRun] = {}
        self._pace: dict[str, float] = dict(forecast or {})  # strategy -> seconds an epoch
        self._left = {run.id: run for run in todo.runs}
        for run in todo.runs:
            if plan.state_of(run)[0] in ("finished", "failed"):
                self.ended(run)

    def started(self, run: PlannedRun) -> None:
        """Note that a run has been started."""
        self._live[run.id] = _RunningRun(time.monotonic())
        self._left.setdefault(run.id, run)  # one that was planned later, by a search that learns

    def at(self, run: PlannedRun, epoch: float) -> None:
        """Note the epochs that a run has finished."""
        live = self._live[run.id]
        live.first = epoch if live.first is None else live.first
        live.epoch = epoch
        if epoch - live.first >= 0.2:
            self._pace[run.config.strategy] = (time.monotonic() - live.started) / (epoch - live.first)

    def ended(self, run: PlannedRun) -> None:
        """Note that a run is over; a finished one tells its pace itself."""
        self._live.pop(run.id, None)
        self._left.pop(run.id, None)
        summary = documents.read_json_or_empty(run.directory / keys.SUMMARY)
        if summary.get("train_seconds") and summary.get("epochs"):
            self._pace[run.config.strategy] = summary["train_seconds"] / summary["epochs"]

    def left(self, slots: int) -> tuple[float, float | None]:
        """Return the share of the sweep that is done, and the seconds that are left, if that can be said."""
        done = {name: live.epoch for name, live in self._live.items()}
        epochs: list[tuple[str, float]] = [
            (run.config.strategy, run.config.epochs - done.get(run.id, 0.0)) for run in self._left.values()
        ]
        missing = max(self._todo.cap - self._todo.points, 0)  # runs that a search has yet to choose
        typical = self._todo.to_prepare[0].epochs
        epochs += [("", float(typical))] * missing
        total = sum(run.config.epochs for run in self._todo.runs) + missing * typical
        return 1 - sum(left for _, left in epochs) / total, seconds_left(epochs, self._pace, slots)
