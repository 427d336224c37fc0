"""Run directories in; comparison table, figures, prediction grid and report out.

    python -m analysis runs/demo          a folder of run directories
    python -m analysis demo               the same, by its name below runs/
    python -m analysis sweeps/demo.yaml   the runs of that sweep file
    python -m analysis me/trials/1a2b3c4d a W&B sweep, fetched to runs/1a2b3c4d; its id or its page's address will do
    python -m analysis                    the newest sweep, below runs/ or on W&B
    python -m analysis demo --mix-data    even where its runs were tested on different pictures
    python -m analysis demo --attention   and a grid of where the best run looked

In the order they act: source (which folder; pull brings what is on a W&B server), frames (what its runs left), and
build, which names the rest.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import track
from rich.table import Table
from rich.text import Text

from analysis.errors import InputError
from analysis.pipeline import build_report
from analysis.report import columns, gradcam
from analysis.sources.locate import find_folder
from analysis.sources.parallel import side_by_side
from analysis.sources.run_directories import read_sweep
from analysis.sources.sweep import Sweep
from analysis.sources.test_sets import MIX_DATA
from analysis.tables import comparison
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, UserError
from finetune.system.atomic import WriteError
from finetune.system.output import SafeConsole, command


@command
def main(arguments: list[str] | None = None) -> int:
    """Analyse one sweep; return the exit code."""
    options = _parser().parse_args(arguments)
    progress = SafeConsole(stderr=True)
    try:
        watch: Any = partial(track, console=progress, transient=True, disable=not progress.is_terminal)
        folder = find_folder(
            options.sweep, watch=lambda runs, number: watch(runs, description="fetching runs", total=number)
        )
        out = Path(options.out) if options.out else Path("reports") / folder.resolve().name
        _check_out(out)
        read = partial(side_by_side, watch=partial(watch, description="reading runs"))
        sweep = read_sweep(folder, read, options.mix_data)
        drawn = partial(side_by_side, watch=partial(watch, description="drawing"))
        look = gradcam.draw_gradcam if options.attention else (lambda run_dir: None)  # noqa: ARG005
        comparison, said = build_report(sweep, out, options.target, drawn, options.seed, look)
    except UserError as error:
        print(f"python -m analysis: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WriteError as error:
        print(f"python -m analysis: {error}; report.html is as it was", file=sys.stderr)
        return EXIT_FAILED
    _print(sweep, comparison, said, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Compare the runs of a sweep: tables, figures, prediction grid, report."
    )
    parser.add_argument(
        "sweep",
        nargs="?",
        metavar="SWEEP",
        help="a folder of runs, its name below runs/, a sweep file, or a W&B sweep (default: newest)",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (default: reports/<sweep>)")
    parser.add_argument(
        "--target", type=_target, default=0.8, help="val accuracy to time the way to, a fraction (default: 0.8)"
    )
    parser.add_argument(
        "--seed", type=int, default=comparison.SEED, help="of the bootstrap behind intervals and tests (default: 0)"
    )
    parser.add_argument(
        "--attention", action="store_true", help="have the best run draw where it looked, which needs its pictures"
    )
    parser.add_argument("--mix-data", action="store_true", help=MIX_DATA)
    return parser


def _target(text: str) -> float:
    """Read --target; argparse turns the error into a message and exit code 2."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction above 0 and up to 1, such as 0.8")
    return value


def _check_out(out: Path) -> None:
    """Refuse a place to write that is not a folder, before any work is done."""
    blocking = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise InputError(f"--out {out}: {blocking} is a file, not a folder. Name another folder.")


def _print(sweep: Sweep, comparison: comparison.Comparison, said: list[str], out: Path) -> None:
    """Print the comparison, what to know of it, and the files to open."""
    console = SafeConsole()
    if console.is_terminal:
        shown = columns.columns_that_fit(comparison.strategies, comparison.target, console.width)
    else:  # a log or a pipe: no box, no width to keep to
        console, shown = SafeConsole(width=240), columns.columns(comparison.target)
    table = Table(
        box=box.ROUNDED if console.is_terminal else box.MARKDOWN, title=Text(_title(sweep)), title_justify="left"
    )
    rows = columns.cells(comparison.strategies, shown)
    for column, texts in zip(shown, zip(*rows, strict=True), strict=True):
        width = max(map(len, texts)) if column.number else None  # headings may wrap, numbers may not
        table.add_column(Text(column.heading), justify="right" if column.number else "left", min_width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for sentence in said:
        console.print(Text(sentence), soft_wrap=True)
    console.print(Text(f"\nOpen {out / 'report.html'}"), soft_wrap=True)
    others = (
        "comparison.csv, .md and .tex; recipes, pairs, runs and epochs .csv; figures/; prediction_grid*.png; "
        "model_card.md; report.json"
    )
    console.print(Text(f"Beside it: {others}"), soft_wrap=True)


def _title(sweep: Sweep) -> str:
    synthetic = (
        " on synthetic pictures" if "data" in sweep.finished and (sweep.finished["data"] == "demo").any() else ""
    )
    return f"{sweep.name}: {len(sweep.finished)} finished runs{synthetic}"


if __name__ == "__main__":
    sys.exit(main())
