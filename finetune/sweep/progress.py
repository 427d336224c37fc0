"""What an agent shows while runs are under way, with the time left: bars on a terminal, elsewhere lines."""

import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich import progress as rich_progress

from finetune.rundir import claim, files, keys
from finetune.sweep import display
from finetune.sweep.display import console
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


class _Bars:
    """Base of the two displays: a context in which bars are shown on a terminal."""

    def __init__(self) -> None:
        self.on_terminal = sys.stdout.isatty()  # rich takes a notebook, or a log with FORCE_COLOR, for a terminal
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
        )
        self.bars = rich_progress.Progress(*columns, console=console, transient=True, disable=not self.on_terminal)

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()


class RunReporter(_Bars):
    """Progress of an agent's own runs: a bar for the sweep, one for each slot, and a line for each run that ended.

    Args:
        slots: how many runs go side by side.
        pending: how many of the planned runs are to be started.
        forecast: strategy -> expected seconds an epoch.
    """

    def __init__(self, plan: SweepPlan, slots: int, pending: int, forecast: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self._plan, self._slots = plan, slots
        self._time_left = TimeLeftEstimator(plan, forecast)
        self._number = self._count_known() - pending  # of the run that was started last
        self._started: dict[str, tuple[int, float]] = {}  # run -> its number, time.monotonic() at its start
        self._sweep_bar = self.bars.add_task(str(plan.sweep.folder), total=1.0, note="")
        self._slot_bars: dict[int, rich_progress.TaskID] = {}

    def started(self, slot: int, run: PlannedRun) -> None:
        """Show that a run's process has been started in a slot."""
        self._number += 1
        self._started[run.id] = self._number, time.monotonic()
        self._time_left.started(run)
        self._slot_bars[slot] = self.bars.add_task(self._title(run), total=1.0, note="starting")
        total = self._count_all()
        self.bars.update(
            self._sweep_bar, description=f"{self._plan.sweep.folder}: run {min(self._number, total)} of {total}"
        )
        if not self.on_terminal:
            console.print(f"{self._title(run)} ...")

    def progressed(self, slot: int, run: PlannedRun, progress: Mapping[str, Any]) -> None:
        """Show the newest progress of a run: epoch, epochs, val_accuracy, phase, share; empty while there is none."""
        if not progress or not self.on_terminal:
            return
        self._time_left.progressed(run, progress["epoch"])
        self.bars.update(
            self._slot_bars[slot], completed=progress["epoch"] / progress["epochs"], note=_progress_note(progress)
        )
        share, seconds = self._time_left.left(self._slots)
        note = "" if seconds is None else f"about {display.duration(seconds)} left"
        self.bars.update(self._sweep_bar, completed=share, note=note)

    def ended(self, slot: int, run: PlannedRun, state: str, reason: str) -> None:
        """Show that a run's process has ended: finished, failed, killed, or taken by another agent."""
        self.bars.remove_task(self._slot_bars.pop(slot))
        self._time_left.ended(run)
        if state == "taken":
            console.print(f"{self._title(run)} {reason}")
        else:
            seconds = time.monotonic() - self._started[run.id][1]
            console.print(_end_line(self._title(run), run.directory, state, reason, seconds))

    def _title(self, run: PlannedRun) -> str:
        """Return such as `[3/20] partial-ab12cd34 lr 0.003 seed 1`."""
        total = self._count_all()
        number = min(self._started[run.id][0], total)
        return f"[{number}/{total}] {display.label(run, display.varying(self._plan))}"

    def _count_all(self) -> int:
        """Return how many runs the sweep has, with those that a search has yet to choose."""
        return self._count_known() + self._plan.points_left

    def _count_known(self) -> int:
        return len(expected_runs(self._plan, retry_failed=False))


def _progress_note(progress: Mapping[str, Any]) -> str:
    accuracy = progress.get("val_accuracy")
    val = "" if accuracy is None else f", val {100 * accuracy:.1f}%"
    epoch = f"epoch {min(int(progress['epoch']) + 1, progress['epochs'])}/{progress['epochs']}"
    phase = {"test": "testing", "cache": "filling the cache"}.get(progress["phase"], epoch)
    share = progress.get("share")  # of the cache; None while another run fills it
    return f"{phase}{'' if share is None else f' {share:.0%}'}{val}"


def _end_line(title: str, run_dir: Path, state: str, reason: str, seconds: float) -> str:
    """Return the line about a run that has ended, with its scores or its failure."""
    if state != "finished":
        return f"{title} {state}: {reason}; log: {run_dir / keys.LOG}"
    summary = documents.read_json_or_empty(run_dir / keys.SUMMARY)
    scores = [
        f"{name} {100 * summary[key]:.1f}%"
        for name, key in (("val", "best/val_accuracy"), ("test", "test/accuracy"))
        if isinstance(summary.get(key), int | float)
    ]
    return f"{title} {' '.join(scores)} {seconds:.0f} s"


class RunDirWatcher(_Bars):
    """Progress of runs that other processes start, from their directories: one bar, and lines as in `RunReporter`.

    Args:
        folder: of the run directories.
        expected: how many runs the sweep has, None where that is not known.
    """

    def __init__(self, folder: Path, expected: int | None) -> None:
        super().__init__()
        self._folder, self._expected = folder, expected
        self._states = {run: _state(run) for run in files.find_runs(folder)}
        self._states_before = dict(self._states)
        self._bar = self.bars.add_task(str(folder), total=expected, completed=self._count_finished(), note="")

    def update(self) -> bool:
        """Show changes since the last call; return whether a run is under way."""
        for run in files.find_runs(self._folder):
            before = self._states.get(run)
            if before == "finished":
                continue
            try:
                state = _state(run)
            except (OSError, ValueError):  # another machine's half-written file, a full disk: read it at the next call
                continue
            if state != before:
                self._states[run] = state
                console.print(self._line(run, state))
        running = [run for run, state in self._states.items() if state == "running"]
        epochs = [f"{run.name} {len(files.read_history(run)[0])}" for run in running] if self.on_terminal else []
        note = "epochs: " + ", ".join(epochs) if epochs else ""
        self.bars.update(self._bar, completed=self._count_finished(), note=note)
        return bool(running)

    def failed(self) -> list[Path]:
        """Return the runs that have failed since this watcher was made."""
        return [run for run, state in self._states.items() if state == "failed" != self._states_before.get(run)]

    def unsent(self) -> set[str]:
        """Return the W&B ids of runs that have finished since this watcher was made and are not fully on the server."""
        finished = [run for run, state in self._states.items() if state == "finished" != self._states_before.get(run)]
        records = [file for run in finished for file in run.glob("wandb-*.json")]
        return {
            file.stem.removeprefix("wandb-")
            for file in records
            if documents.read_json_or_empty(file).get("sent") is False
        }

    def _count_finished(self) -> int:
        return sum(state == "finished" for state in self._states.values())

    def _line(self, run: Path, state: str) -> str:
        if state == "running":
            return f"{run.name} ..."
        if state == "finished":
            total = f"/{self._expected}" if self._expected else ""
            seconds = documents.read_json_or_empty(run / keys.SUMMARY).get("train_seconds", 0)
            return _end_line(f"[{self._count_finished()}{total}] {run.name}", run, state, "", seconds)
        return _end_line(run.name, run, state, files.status(run)[1] or "ended without a message", 0)


def _state(run: Path) -> str:
    """Return finished, running, failed, killed or unfinished."""
    state = files.status(run)[0]
    return "running" if state != "finished" and claim.is_alive(run) else state
