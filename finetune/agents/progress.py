"""What an agent shows while runs go on: bars on a terminal, else a line at each start and end."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rich import progress as rich_progress

from finetune.agents import display, plan, race
from finetune.agents.plan import Plan, PlannedRun
from finetune.agents.time_left import Pace
from finetune.rundir import keys


class Progress(Protocol):
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
def shown(todo: Plan, slots: int, wanted: int, forecast: Mapping[str, float] | None = None) -> Iterator[Progress]:
    """Show progress: bars on a terminal, else a line at each start and end.

    Args:
        slots: how many runs go side by side.
        wanted: how many of the planned runs are to do.
        forecast: strategy -> seconds an epoch is expected to take.
    """
    lines = Lines(todo, wanted)
    if not sys.stdout.isatty():
        yield lines
        return
    bars = Bars(todo, lines, slots, forecast)
    with bars.bars:
        yield bars


class Lines:
    """A line at the start and at the end of each run."""

    def __init__(self, todo: Plan, wanted: int) -> None:
        self._todo = todo
        self._done = self._known() - wanted
        self._started: dict[str, tuple[int, float]] = {}  # run -> its number, time.monotonic() at its start

    def total(self) -> int:
        """Return how many runs the sweep has, those counted that a search has yet to choose."""
        return self._known() + max(self._todo.cap - self._todo.points, 0)

    def _known(self) -> int:
        todo = self._todo
        return len(race.likely(todo, lambda run: plan.is_to_do(run, False)) if todo.race else todo.runs)

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


class Bars:
    """A bar for the sweep and one for each slot, below the lines of the runs that have ended."""

    def __init__(self, todo: Plan, lines: Lines, slots: int, forecast: Mapping[str, float] | None = None) -> None:
        self._lines, self._slots = lines, slots
        self._pace = Pace(todo, forecast)
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
