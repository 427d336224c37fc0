"""A progress bar for work outside of runs: on the terminal a bar, elsewhere nothing but what is said in lines."""

import contextlib
import sys
from collections.abc import Callable, Iterator

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

Advance = Callable[[int, int | None], None]  # done, and all there is, None where that is not known


@contextlib.contextmanager
def progress_bar(title: str, hidden: bool = False, *, in_bytes: bool = False) -> Iterator[Advance]:
    """Yield what moves the bar, which is gone at the end.

    Args:
        hidden: to show none, for what takes a moment.
        in_bytes: whether it counts bytes, whose rate is shown, or things.
    """
    console = SafeConsole(stderr=True, force_jupyter=False)
    counts = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeRemainingColumn()]
    # Rich takes a notebook, or a log with FORCE_COLOR, for a terminal.
    with Progress(*columns, console=console, transient=True, disable=hidden or not sys.stderr.isatty()) as bars:
        task = bars.add_task(title, total=None)

        def advance(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        yield advance
