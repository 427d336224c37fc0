"""Progress bars of commands: on stderr if that is a terminal, elsewhere nothing."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from finetune.system.output import SafeConsole

T = TypeVar("T")


class Advance(Protocol):
    """Moves a bar; the title, where given, replaces the one before."""

    def __call__(self, done: float, total: float | None, title: str | None = None, /) -> None: ...


@contextlib.contextmanager
def progress_bar(title: str, hidden: bool = False, *, in_bytes: bool = False) -> Iterator[Advance]:
    """Yield the function that moves the bar; the bar disappears at the end.

    Args:
        hidden: show none, for work that takes a moment.
        in_bytes: whether the bar counts bytes, whose rate is shown, or items.
    """
    console = SafeConsole(stderr=True, force_jupyter=False)
    counts = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeRemainingColumn()]
    # Rich mistakes a notebook, or a log with FORCE_COLOR, for a terminal.
    with Progress(*columns, console=console, transient=True, disable=hidden or not sys.stderr.isatty()) as bars:
        task = bars.add_task(title, total=None)

        def advance(done: float, total: float | None, title: str | None = None, /) -> None:
            bars.update(task, completed=done, total=total, description=title)

        yield advance


def track(items: Iterable[T], total: int, title: str, hidden: bool = False) -> Iterator[T]:
    """Yield the items, and move a bar as they are consumed."""
    with progress_bar(title, hidden) as advance:
        for done, item in enumerate(items):
            advance(done, total)
            yield item
