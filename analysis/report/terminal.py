"""The comparison and the progress bars in the terminal."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import track
from rich.table import Table
from rich.text import Text

from analysis.report.columns import Column, cells, columns_that_fit, comparison_columns
from analysis.report.sentences import describe_verdict
from analysis.sources.parallel import RunJobs, run_in_parallel
from analysis.tables.analysis import Analysis
from finetune.system.output import SafeConsole

PIPE_WIDTH = 240  # columns; a log or a pipe has no width of its own
OTHER_FILES = (
    "comparison.csv, .md and .tex; recipes, pairs, runs and epochs .csv; figures/; prediction_grid*.png; "
    "model_card.md; report.json"
)


def print_report(analysis: Analysis, out: Path) -> None:
    """Print the comparison, the verdict, the caveats, and the files to open."""
    comparison, console = analysis.comparison, SafeConsole()
    if console.is_terminal:
        shown = columns_that_fit(comparison.arms, console.width)
    else:
        console, shown = SafeConsole(width=PIPE_WIDTH), comparison_columns()
    console.print(_table(analysis, shown, box.ROUNDED if console.is_terminal else box.MARKDOWN))
    for sentence in (describe_verdict(comparison, analysis.verdict).headline, *analysis.notes):
        console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"\nOpen {out / 'report.html'}"), soft_wrap=True)
    console.print(Text(f"In the same folder: {OTHER_FILES}"), soft_wrap=True)


def _table(analysis: Analysis, shown: list[Column], border: box.Box) -> Table:
    synthetic = " on synthetic images" if analysis.data["synthetic"] else ""
    title = f"{analysis.sweep.name}: {len(analysis.sweep.finished)} finished runs{synthetic}"
    table = Table(box=border, title=Text(title), title_justify="left")
    rows = cells(analysis.comparison.arms, shown)
    for column, texts in zip(shown, zip(*rows, strict=True), strict=True):
        width = max(map(len, texts)) if column.number else None  # headings may wrap, numbers may not
        table.add_column(Text(column.heading), justify="right" if column.number else "left", min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


@dataclass(frozen=True)
class ProgressBars:
    """Progress bars that vanish when they end; none if the console is not a terminal."""

    console: SafeConsole

    def fetching(self, runs: Iterable[Any], count: int) -> Iterable[Any]:
        """Wrap the runs that are fetched; see `find_folder`."""
        return self._track(runs, "fetching runs", total=count)

    def run_jobs(self, description: str) -> RunJobs:
        """Return `run_in_parallel` with a progress bar."""
        return partial(run_in_parallel, show_progress=partial(self._track, description=description))

    def _track(self, items: Iterable[Any], description: str, total: float | None = None) -> Iterable[Any]:
        is_hidden = not self.console.is_terminal
        return track(items, description, total, console=self.console, transient=True, disable=is_hidden)
