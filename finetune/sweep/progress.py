"""What an agent shows while runs go on: bars on a terminal, else a line at each start and end."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rich import progress as rich_progress

from finetune.rundir import claim, files, keys
from finetune.sweep import display, plan, racing
from finetune.sweep.display import console
from finetune.sweep.eta import TimeLeftEstimator
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents


class RunReporter(Protocol):
    """What the loop tells while runs go on."""

    def started(self, slot: int, run: PlannedRun) -> None:
        """A run's process has been started in a slot."""

    def running(self, slot: int, run: PlannedRun, told: Mapping[str, Any]) -> None:
        """What the run said last: epoch, epochs, val_accuracy, phase; called often, perhaps with nothing."""

    def ended(self, slot: int, run: PlannedRun, state: str, reason: str, summary: Mapping[str, Any]) -> None:
        """A run's process has ended: finished, failed, killed or taken by another agent."""

    def say(self, line: str) -> None:
        """Print a line between the others."""


@contextlib.contextmanager
def reporting(
    todo: SweepPlan, slots: int, wanted: int, forecast: Mapping[str, float] | None = None
) -> Iterator[RunReporter]:
    """Show progress: bars on a terminal, else a line at each start and end.

    Args:
        slots: how many runs go side by side.
        wanted: how many of the planned runs are to do.
        forecast: strategy -> seconds an epoch is expected to take.
    """
    lines = LineReporter(todo, wanted)
    if not sys.stdout.isatty():
        yield lines
        return
    bars = BarReporter(todo, lines, slots, forecast)
    with bars.bars:
        yield bars


class LineReporter:
    """A line at the start and at the end of each run."""

    def __init__(self, todo: SweepPlan, wanted: int) -> None:
        self._todo = todo
        self._done = self._known() - wanted
        self._started: dict[str, tuple[int, float]] = {}  # run -> its number, time.monotonic() at its start

    def total(self) -> int:
        """Return how many runs the sweep has, those counted that a search has yet to choose."""
        return self._known() + max(self._todo.cap - self._todo.points, 0)

    def _known(self) -> int:
        todo = self._todo
        return len(racing.expected_runs(todo, lambda run: plan.is_to_do(run, False)) if todo.race else todo.runs)

    def position(self) -> str:
        """Return such as `runs/demo: run 3 of 20`."""
        return f"{self._todo.sweep.folder}: run {min(self._done, self.total())} of {self.total()}"

    def head(self, run: PlannedRun) -> str:
        """Return such as `[3/20] partial-ab12cd34 lr 0.003 seed 1`."""
        number = min(self._started[run.id][0], self.total())
        return f"[{number}/{self.total()}] {display.label(run, display.varying(self._todo))}"

    def started(self, slot: int, run: PlannedRun) -> None:  # noqa: ARG002
        self.number(run)
        self.say(f"{self.head(run)} ...")

    def number(self, run: PlannedRun) -> None:
        """Give a run the next number."""
        self._done += 1
        self._started[run.id] = self._done, time.monotonic()

    def running(self, slot: int, run: PlannedRun, told: Mapping[str, Any]) -> None:
        """Say nothing: a log file shall stay short."""

    def ended(self, slot: int, run: PlannedRun, state: str, reason: str, summary: Mapping[str, Any]) -> None:  # noqa: ARG002
        seconds = time.monotonic() - self._started[run.id][1]
        if state == "finished":
            scores = [
                f"{name} {100 * summary[key]:.1f}%"
                for name, key in (("val", "best/val_accuracy"), ("test", "test/accuracy"))
                if isinstance(summary.get(key), int | float)
            ]
            self.say(f"{self.head(run)} {' '.join(scores)} {seconds:.0f} s")
        elif state == "taken":
            self.say(f"{self.head(run)} {reason}")
        else:
            self.say(f"{self.head(run)} {state}: {reason}; log: {run.directory / keys.LOG}")

    def say(self, line: str) -> None:
        display.console.print(line)


class BarReporter:
    """A bar for the sweep and one for each slot, below the lines of the runs that have ended."""

    def __init__(
        self, todo: SweepPlan, lines: LineReporter, slots: int, forecast: Mapping[str, float] | None = None
    ) -> None:
        self._lines, self._slots = lines, slots
        self._pace = TimeLeftEstimator(todo, forecast)
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
        )
        self.bars = rich_progress.Progress(*columns, console=display.console, transient=True)
        self._total = self.bars.add_task(str(todo.sweep.folder), total=1.0, note="")
        self._tasks: dict[int, rich_progress.TaskID] = {}

    def started(self, slot: int, run: PlannedRun) -> None:
        self._lines.number(run)
        self._pace.started(run)
        self._tasks[slot] = self.bars.add_task(self._lines.head(run), total=1.0, note="starting")
        self.bars.update(self._total, description=self._lines.position())

    def running(self, slot: int, run: PlannedRun, told: Mapping[str, Any]) -> None:
        if not told:
            return
        self._pace.at(run, told["epoch"])
        accuracy = told.get("val_accuracy")
        val = "" if accuracy is None else f", val {100 * accuracy:.1f}%"
        epoch = f"epoch {min(int(told['epoch']) + 1, told['epochs'])}/{told['epochs']}"
        doing = {"test": "testing", "cache": "filling the cache"}.get(told["phase"], epoch)
        if told.get("share") is not None:  # None while another run fills it
            doing += f" {told['share']:.0%}"
        note = f"{doing}{val}"
        self.bars.update(self._tasks[slot], completed=told["epoch"] / told["epochs"], note=note)
        share, seconds = self._pace.left(self._slots)
        left = "" if seconds is None else f"about {display.duration(seconds)} left"
        self.bars.update(self._total, completed=share, note=left)

    def ended(self, slot: int, run: PlannedRun, state: str, reason: str, summary: Mapping[str, Any]) -> None:
        self.bars.remove_task(self._tasks.pop(slot))
        self._pace.ended(run)
        self._lines.ended(slot, run, state, reason, summary)

    def say(self, line: str) -> None:
        self._lines.say(line)


class RunDirWatcher:
    """Watches the run directories of one sweep; a context, in which the bar is shown."""

    def __init__(self, folder: Path, expected: int | None) -> None:
        self._folder, self._expected = folder, expected
        self._states = {run: _state(run) for run in files.find_runs(folder)}
        self._before = dict(self._states)
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
        )
        self._bars = rich_progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._bars.add_task(str(folder), total=expected, completed=self._finished(), note="")

    def __enter__(self) -> "RunDirWatcher":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def look(self) -> bool:
        """Tell what has changed since the last call; return whether a run is going on."""
        for run in files.find_runs(self._folder):
            before = self._states.get(run)
            if before == "finished":
                continue
            try:
                now = _state(run)
            except (OSError, ValueError):  # another machine's half-written file, a full disk: the next look will tell
                continue
            if now != before:
                self._states[run] = now
                self._tell(run, now)
        running = [run for run, state in self._states.items() if state == "running"]
        epochs = [f"{run.name} {len(files.read_history(run)[0])}" for run in running] if console.is_terminal else []
        self._bars.update(self._bar, completed=self._finished(), note="epochs: " + ", ".join(epochs) if epochs else "")
        return bool(running)

    def failed(self) -> list[Path]:
        """Return the runs that have failed since this watch began."""
        return [run for run, state in self._states.items() if state == "failed" and self._before.get(run) != "failed"]

    def unsent(self) -> set[str]:
        """Return the W&B ids of runs that have finished since this watch began, of which W&B has not got all."""
        done = [run for run, state in self._states.items() if state == "finished" != self._before.get(run)]
        notes = [file for run in done for file in run.glob("wandb-*.json")]
        return {
            note.stem.removeprefix("wandb-")
            for note in notes
            if documents.read_json_or_empty(note).get("sent") is False
        }

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        console.print(line)

    def _finished(self) -> int:
        return sum(state == "finished" for state in self._states.values())

    def _tell(self, run: Path, state: str) -> None:
        total = f"/{self._expected}" if self._expected else ""
        if state == "running":
            self.say(f"{run.name} ...")
        elif state == "finished":
            summary = documents.read_json_or_empty(run / keys.SUMMARY)
            scores = [
                f"{name} {100 * summary[key]:.1f}%"
                for name, key in (("val", "best/val_accuracy"), ("test", "test/accuracy"))
                if isinstance(summary.get(key), int | float)
            ]
            self.say(
                f"[{self._finished()}{total}] {run.name} {' '.join(scores)} {summary.get('train_seconds', 0):.0f} s"
            )
        else:
            self.say(f"{run.name} {state}: {files.status(run)[1] or 'ended without a word'}; log: {run / keys.LOG}")


def _state(run: Path) -> str:
    """Return finished, running, failed, killed or unfinished."""
    state = files.status(run)[0]
    return "running" if state != "finished" and claim.is_alive(run) else state
