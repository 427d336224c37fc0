"""The comparison of a sweep as a W&B Report.

    python -m analysis.wandb_report runs/demo           (make report SWEEP=runs/demo)
    python -m analysis.wandb_report entity/project/id

The folder is found and analysed as by `python -m analysis`. The results go to a W&B run in the sweep's project; the
report shows them together with panels over the sweep's runs. A later call updates the same report.
"""

import argparse
import sys
from pathlib import Path

from analysis.errors import InputError
from analysis.pipeline import build_report
from analysis.report.shell import shell_command
from analysis.report.terminal import ProgressBars
from analysis.report.wandb.media_run import isolated_wandb_environment, log_media, open_media_run
from analysis.report.wandb.save import MAX_TITLE, connect, report_inputs, report_name, save_report
from analysis.sources.locate import find_folder
from analysis.sources.run_directories import read_sweep
from analysis.sources.test_sets import MIX_DATA
from analysis.sources.wandb.errors import FetchError, fetch_errors
from finetune.errors import EXIT_BAD_INPUT, UserError
from finetune.system.output import SafeConsole, command
from finetune.tracking.sweep_address import folder_address


@command
def main(arguments: list[str] | None = None) -> int:
    """Write the report of one sweep; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with isolated_wandb_environment():
            print(write_report(options.sweep, options.title, options.draft, options.mix_data))
    except UserError as error:
        print(f"python -m analysis.wandb_report: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.wandb_report", description="Write the comparison of a sweep as a W&B Report."
    )
    parser.add_argument(
        "sweep",
        nargs="?",
        metavar="SWEEP",
        help="a folder of runs, its name below runs/, a sweep file, or a sweep on W&B (default: newest)",
    )
    parser.add_argument(
        "--title", type=_title, metavar="T", help="title of the report (default: unchanged, or the sweep's name)"
    )
    parser.add_argument("--draft", action="store_true", help="save as a draft, which others do not see in the list")
    parser.add_argument("--mix-data", action="store_true", help=MIX_DATA)
    return parser


def _title(text: str) -> str:
    """Read --title; argparse turns the error into a message and exit code 2."""
    if not 0 < len(text.strip()) <= MAX_TITLE:
        raise argparse.ArgumentTypeError(f"a title has 1 to {MAX_TITLE} characters, this has {len(text.strip())}")
    return text.strip()


def write_report(argument: str | None, title: str | None = None, draft: bool = False, mix_data: bool = False) -> str:
    """Analyse a sweep, send the results to W&B, and write or update the report; return its address.

    Raises:
        InputError: there is no such sweep, it is not on W&B, W&B can't be reached, or its runs were tested on
            different images (unless `mix_data`).
    """
    console = SafeConsole(stderr=True)
    progress = ProgressBars(console)
    folder = find_folder(argument, show_progress=progress.fetching)
    address = folder_address(folder)
    if address is None:
        raise InputError(f"{folder} is not on W&B yet: {shell_command('make', 'publish', f'SWEEP={folder}')}")
    server = connect()
    sweep = read_sweep(folder, progress.run_jobs("reading runs"), mix_data)
    out = Path("reports") / sweep.name
    analysis = build_report(sweep, out, run_jobs=progress.run_jobs("drawing"))
    inputs = report_inputs(analysis, out, address)
    if inputs.missing:
        print(inputs.missing, file=sys.stderr)
    name = report_name(analysis)
    try:
        with fetch_errors(server.url), console.status("sending to W&B"), open_media_run(address, name) as run:
            log_media(run, out, analysis.comparison.arms)
            return save_report(server, run, inputs, title, draft)
    except FetchError as error:
        raise InputError(f"The report was not written. {error}") from error


if __name__ == "__main__":
    sys.exit(main())
