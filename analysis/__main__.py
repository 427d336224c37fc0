"""Run directories in; comparison table, figures, prediction grids and report out.

python -m analysis runs/demo          a folder of run directories
python -m analysis demo               the same, by its name below runs/
python -m analysis sweeps/demo.yaml   the runs of that sweep file
python -m analysis me/trials/1a2b3c4d a W&B sweep, fetched to runs/1a2b3c4d; its id or its page's address will do
python -m analysis                    the newest sweep, below runs/ or on W&B
python -m analysis demo --mix-data    even if its runs were tested on different images
python -m analysis demo --by augment  compare augmentations; val chooses the rest for each
python -m analysis demo --attention   and a grid with the best run's attention maps
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from analysis.errors import InputError
from analysis.pipeline import build_report
from analysis.report.terminal import ProgressBars, print_report
from analysis.sources.locate import find_folder
from analysis.sources.run_directories import read_sweep
from analysis.sources.test_sets import MIX_DATA
from analysis.tables.analysis import DEFAULTS, Options
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, UserError
from finetune.system.atomic import WriteError
from finetune.system.output import SafeConsole, command


@command
def main(arguments: list[str] | None = None) -> int:
    """Analyse one sweep; return the exit code."""
    options = _parser().parse_args(arguments)
    progress = ProgressBars(SafeConsole(stderr=True))
    try:
        folder = find_folder(options.sweep, show_progress=progress.fetching)
        out = Path(options.out) if options.out else Path("reports") / folder.resolve().name
        _check_out(out)
        sweep = read_sweep(folder, progress.run_jobs("reading runs"), options.mix_data)
        analysis = build_report(sweep, out, _options(options), options.attention, progress.run_jobs("drawing"))
    except UserError as error:
        print(f"python -m analysis: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except WriteError as error:
        print(f"python -m analysis: {error}; report.html is as it was", file=sys.stderr)
        return EXIT_FAILED
    print_report(analysis, out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="Compare the runs of a sweep: tables, figures, prediction grids, report."
    )
    parser.add_argument(
        "sweep",
        nargs="?",
        metavar="SWEEP",
        help="a folder of runs, its name below runs/, a sweep file, or a W&B sweep (default: newest)",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (default: reports/<sweep>)")
    parser.add_argument(
        "--target",
        type=_target,
        default=DEFAULTS.target,
        help="val accuracy, a fraction; the report tells how fast runs reached it (default: 0.8)",
    )
    parser.add_argument(
        "--margin",
        type=_margin,
        default=DEFAULTS.margin,
        metavar="SHARE",
        help="a loss of accuracy that you accept for a lower cost, a fraction (default: 0.02)",
    )
    parser.add_argument(
        "--by",
        type=_names,
        default=(),
        metavar="FIELD[,FIELD]",
        help="compare these fields; val tunes the others (default: all that the sweep varies, but rates and seeds)",
    )
    parser.add_argument(
        "--tuned", type=_names, default=(), metavar="FIELD[,FIELD]", help="further fields that val tunes"
    )
    parser.add_argument(
        "--all-test", action="store_true", help="write test results of recipes that val did not choose, too (CSV files)"
    )
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="of the importance of settings (default: 0)")
    parser.add_argument(
        "--attention", action="store_true", help="draw attention maps with the best run, which needs its images"
    )
    parser.add_argument("--mix-data", action="store_true", help=MIX_DATA)
    return parser


def _options(flags: argparse.Namespace) -> Options:
    """Return the options of the analysis among the flags."""
    return Options(**{field.name: getattr(flags, field.name) for field in fields(Options)})


def _names(text: str) -> tuple[str, ...]:
    """Read --by and --tuned."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def _margin(text: str) -> float:
    """Read --margin; argparse turns the error into a message and exit code 2."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to below 1, such as 0.02 for 2 points")
    return value


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
    """Refuse an output path that is not a folder, before any work is done."""
    blocking = next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise InputError(f"--out {out}: {blocking} is a file, not a folder. Name another folder.")


if __name__ == "__main__":
    sys.exit(main())
