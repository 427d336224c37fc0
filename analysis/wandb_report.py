"""The comparison of a sweep as a W&B Report.

    python -m analysis.wandb_report runs/demo           (make report SWEEP=runs/demo)
    python -m analysis.wandb_report entity/project/id

The folder is found and analysed as by `python -m analysis`; what that writes goes to a W&B run beside the sweep's, and
the report, made of it and of panels over the sweep's runs, is written or renewed.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.progress import track

from analysis import address, fetch, report_run, report_words, tables, wording
from analysis.address import Address
from analysis.build import build
from analysis.commands import command as shown
from analysis.commands import recorded
from analysis.errors import InputError
from analysis.fetch import Server
from analysis.frames import Sweep, read_sweep
from analysis.parallel import side_by_side
from analysis.report_blocks import Told, blocks, ending, kept, library
from analysis.server_errors import FetchError, fetch_errors
from analysis.source import find_folder
from analysis.tested import MIX_DATA
from finetune.errors import EXIT_BAD_INPUT, UserError
from finetune.rundir.keys import REMOTE
from finetune.system.documents import read_json
from finetune.system.output import SafeConsole, command
from finetune.system.redaction import without_login

TARGET = 0.8  # val accuracy to time the way to, as `python -m analysis` has it
MOST_TITLE = 128  # characters, as W&B has it
DRAFT, REPORT = "draft", "report"  # keys of the analysis run's config: the addresses of what it has been shown in


@command
def main(arguments: list[str] | None = None) -> int:
    """Write the report of one sweep; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with report_run.apart():
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
        "--title", type=_title, metavar="T", help="of the report (default: as it is, or named by sweep)"
    )
    parser.add_argument("--draft", action="store_true", help="save as a draft, which others do not see in the list")
    parser.add_argument("--mix-data", action="store_true", help=MIX_DATA)
    return parser


def _title(text: str) -> str:
    """Read --title; argparse turns the error into a message and exit code 2."""
    if not 0 < len(text.strip()) <= MOST_TITLE:
        raise argparse.ArgumentTypeError(f"a title has 1 to {MOST_TITLE} characters, this has {len(text.strip())}")
    return text.strip()


def write_report(argument: str | None, title: str | None = None, draft: bool = False, mix_data: bool = False) -> str:
    """Analyse a sweep, send what that makes to W&B, and write or renew the report; return its address.

    Raises:
        InputError: there is no such sweep, W&B does not have it, W&B can't be reached, or, not `mix_data`, its runs
            were tested on different pictures.
    """
    screen = SafeConsole(stderr=True)
    watch: Any = partial(track, console=screen, transient=True, disable=not screen.is_terminal)
    folder = find_folder(argument, watch=lambda runs, number: watch(runs, description="fetching runs", total=number))
    place = address.of_folder(folder)
    if place is None:
        raise InputError(f"{folder} is not on W&B yet: {shown('make', 'publish', f'SWEEP={folder}')}")
    server = _connect()
    sweep = read_sweep(folder, partial(side_by_side, watch=partial(watch, description="reading runs")), mix_data)
    out = Path("reports") / sweep.name
    comparison, _ = build(sweep, out, TARGET, partial(side_by_side, watch=partial(watch, description="drawing")))
    told = _told(sweep, comparison, out, place)
    if told.missing:
        print(told.missing, file=sys.stderr)
    name = report_words.name(sweep.text) or sweep.name  # a folder that was fetched is named by the sweep's id
    try:
        with fetch_errors(server.url), screen.status("sending to W&B"), report_run.opened(place, name) as run:
            report_run.log(run, out, told.report["strategies"])
            return _save(server, run, told, title, name, draft)
    except FetchError as error:
        raise InputError(f"The report was not written. {error}") from error


def _connect() -> Server:
    try:
        return fetch.connect(fetch.connect(is_brief=True))  # the first learns quickly whether there is a server
    except FetchError as error:
        how = "`wandb login` or WANDB_API_KEY, with WANDB_MODE unset or online"
        raise InputError(f"{error}\n  A W&B report needs a server that answers, and a login ({how}).") from error


def _told(sweep: Sweep, comparison: tables.Comparison, out: Path, place: Address) -> Told:
    """Return what the report is made from."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    best = tables.best_run(sweep, comparison)
    chosen = [Path(path) for path in tables.chosen_runs(sweep, comparison)["path"]]
    finished = [Path(path) for path in sweep.finished["path"]]
    missing = [run.name for run in finished if not _is_there(run, place)]
    sentence = (
        f"{len(missing)} of {len(finished)} finished runs are not on W&B yet, so its panels lack them "
        f"({shown('make', 'publish', f'SWEEP={sweep.folder}')} sends them): {', '.join(missing)}."
    )
    return Told(
        report=report,
        table=wording.markdown(comparison.strategies, wording.columns(comparison.target)),
        question=report_words.question(sweep.text),
        swept=report_words.swept(sweep.text, sweep.finished),
        sweep=place,
        url=without_login(str((read_json(sweep.folder / REMOTE) or {}).get("url") or "")),
        run=report_run.run_id(place),
        media=tuple(report_run.media_of(out)),
        chosen=_ids(chosen, place),
        best=_ids([Path(best["path"])], place),
        commands=report_words.commands(str(place), sweep.text is not None, recorded(best.get("provenance/command"))),
        file=sweep.text,
        missing=sentence if missing else "",
    )


def _notes(run_dir: Path, place: Address) -> dict[str, dict[str, Any]]:
    """Return id -> what is known of it, for the W&B runs of the sweep's project that a run directory was sent to."""
    read = {file.stem.removeprefix("wandb-"): read_json(file) or {} for file in sorted(run_dir.glob("wandb-*.json"))}
    of_project = f"{place.entity}/{place.project}/"
    return {id: note for id, note in read.items() if str(note.get("path", of_project)).startswith(of_project)}


def _is_there(run_dir: Path, place: Address) -> bool:
    """Whether W&B was sent all of a run, or is where it came from."""
    return any(note.get("sent") or "complete" in note for note in _notes(run_dir, place).values())


def _ids(run_dirs: Iterable[Path], place: Address) -> tuple[str, ...]:
    """Return the ids that the runs have, or will have once they are published."""
    return tuple(id for run_dir in run_dirs for id in (_notes(run_dir, place) or {run_dir.name: {}}))


def _save(server: Server, run: Any, told: Told, title: str | None, name: str, draft: bool) -> str:
    """Write the report, or renew the one that was written before; return its address.

    A draft is a report of its own until it is published: a published one is never taken back by `--draft`.
    """
    before, draft_before = run.config.get(REPORT), run.config.get(DRAFT)
    known = draft_before if draft else before or draft_before
    report = _earlier(server, known) if known else None
    below = kept(report.blocks) if report else []
    if report is None:
        usual = f"Which fine-tuning recipe? {name}"[:MOST_TITLE]
        report = library().Report(entity=told.sweep.entity, project=told.sweep.project, title=usual)
    report.title = title or report.title
    report.description = f"{told.report['runs']['finished']} finished runs of the sweep {told.sweep}, compared."
    report.blocks = [*blocks(told), *ending(below)]
    report.width = "fixed"  # the table is too wide for "readable"
    report.save(draft=draft)
    url = _address(server, report)
    published = {DRAFT: None} if known and not draft and not before else {}
    run.config.update({DRAFT if draft else REPORT: url, **published}, allow_val_change=True)
    return url


def _earlier(server: Server, url: str) -> Any:
    """Return the report at an address, or None if it is no longer there."""
    try:
        return server.ask(lambda: library().Report.from_url(url))
    except Exception:  # of a report that was deleted, the client says what comes of reading None
        print(f"{url} is no longer there, or can't be read: making a new report.", file=sys.stderr)
        return None


def _address(server: Server, report: Any) -> str:
    """Return where a saved report is: its id tells, the title is for people.

    The library's own address has the title as it is, with a question mark that ends the path, say.
    """
    words = re.sub(r"[\W_]+", "-", report.title, flags=re.ASCII).strip("-")
    place = f"{quote(report.entity)}/{quote(report.project)}"
    return f"{server.page}/{place}/reports/{words}--{report.id.rstrip('=')}"


if __name__ == "__main__":
    sys.exit(main())
