"""Writes a W&B report, or updates the one that was written before."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from analysis.errors import InputError
from analysis.report.shell import shell_command
from analysis.report.wandb.blocks import ReportInputs, library, notes_section, report_blocks, user_notes
from analysis.report.wandb.media_run import media_files, run_id
from analysis.sources.wandb import client
from analysis.sources.wandb.client import Server
from analysis.sources.wandb.errors import FetchError
from analysis.tables.analysis import Analysis
from analysis.tables.metadata import sweep_title
from finetune.rundir.keys import REMOTE
from finetune.system.documents import read_json
from finetune.system.redaction import without_login
from finetune.tracking.sweep_address import SweepAddress

MAX_TITLE = 128  # characters, a limit of W&B
DRAFT, REPORT = "draft", "report"  # keys of the analysis run's config: the addresses of the sweep's reports


def connect() -> Server:
    """Return the W&B server. Raises InputError without a server or a login."""
    try:
        return client.connect(client.connect(is_brief=True))  # the first learns quickly whether there is a server
    except FetchError as error:
        login = "`wandb login` or WANDB_API_KEY, with WANDB_MODE unset or online"
        raise InputError(f"{error}\n  A W&B report needs a server that answers, and a login ({login}).") from error


def report_inputs(analysis: Analysis, out: Path, address: SweepAddress) -> ReportInputs:
    """Return the inputs of the report.

    Args:
        out: the folder of the report that was written here.
        address: of the sweep on W&B.
    """
    sweep = analysis.sweep
    return ReportInputs(
        analysis=analysis,
        sweep=address,
        url=without_login(str((read_json(sweep.folder / REMOTE) or {}).get("url") or "")),
        run=run_id(address),
        media=tuple(media_files(out)),
        chosen=_wandb_ids(map(Path, analysis.chosen["path"]), address),
        best=_wandb_ids([analysis.best_dir], address),
        missing=_missing_sentence(analysis, address),
    )


def report_name(analysis: Analysis) -> str:
    """Return the sweep's name for people; a fetched folder is named by the sweep's id."""
    return sweep_title(analysis.sweep.text) or analysis.sweep.name


def _missing_sentence(analysis: Analysis, address: SweepAddress) -> str:
    """Return a sentence on the finished runs that W&B does not have completely, or ""."""
    finished = [Path(path) for path in analysis.sweep.finished["path"]]
    missing = [run_dir.name for run_dir in finished if not _is_complete_on_wandb(run_dir, address)]
    if not missing:
        return ""
    publish = shell_command("make", "publish", f"SWEEP={analysis.sweep.folder}")
    return (
        f"{len(missing)} of {len(finished)} finished runs are not on W&B yet, so its panels lack them "
        f"({publish} sends them): {', '.join(missing)}."
    )


def _wandb_notes(run_dir: Path, address: SweepAddress) -> dict[str, dict[str, Any]]:
    """Return the notes (wandb-ID.json) on the W&B runs in the sweep's project that have a copy of a run, by id."""
    notes = {file.stem.removeprefix("wandb-"): read_json(file) or {} for file in sorted(run_dir.glob("wandb-*.json"))}
    project = f"{address.entity}/{address.project}/"
    return {id: note for id, note in notes.items() if str(note.get("path", project)).startswith(project)}


def _is_complete_on_wandb(run_dir: Path, address: SweepAddress) -> bool:
    """Whether W&B has a complete copy of a run, or is where the run came from."""
    return any(note.get("sent") or "complete" in note for note in _wandb_notes(run_dir, address).values())


def _wandb_ids(run_dirs: Iterable[Path], address: SweepAddress) -> tuple[str, ...]:
    """Return the ids of the runs on W&B, or those they will have once they are published."""
    return tuple(id for run_dir in run_dirs for id in (_wandb_notes(run_dir, address) or {run_dir.name: {}}))


def save_report(server: Server, run: Any, inputs: ReportInputs, title: str | None, draft: bool) -> str:
    """Write the report, or update the one that was written before; return its address.

    A draft is a report of its own until it is published: `draft` never changes a published report.

    Args:
        run: the analysis run of the sweep, whose config has the addresses.
        title: None for the earlier report's title, or one with the sweep's name.
    """
    published, earlier_draft = run.config.get(REPORT), run.config.get(DRAFT)
    known = earlier_draft if draft else published or earlier_draft
    report = _read_report(server, known) if known else None
    notes = user_notes(report.blocks) if report else []
    if report is None:
        default = f"Which fine-tuning recipe? {report_name(inputs.analysis)}"[:MAX_TITLE]
        report = library().Report(entity=inputs.sweep.entity, project=inputs.sweep.project, title=default)
    report.title = title or report.title
    report.description = f"{len(inputs.analysis.sweep.finished)} finished runs of the sweep {inputs.sweep}, compared."
    report.blocks = [*report_blocks(inputs), *notes_section(notes)]
    report.width = "fixed"  # the table is too wide for "readable"
    report.save(draft=draft)
    url = _report_url(server, report)
    was_draft = {DRAFT: None} if known and not draft and not published else {}
    run.config.update({DRAFT if draft else REPORT: url, **was_draft}, allow_val_change=True)
    return url


def _read_report(server: Server, url: str) -> Any:
    """Return the report at an address, or None if it was deleted."""
    try:
        return server.request(lambda: library().Report.from_url(url))
    except Exception:  # for a deleted report, the client raises whatever reading None gives
        print(f"{url} was deleted or can't be read: writing a new report.", file=sys.stderr)
        return None


def _report_url(server: Server, report: Any) -> str:
    """Return the address of a saved report.

    Not the library's own: it has the title unquoted, so that a question mark in it would end the path. The server
    finds the report by its id; the title is for people.
    """
    title = re.sub(r"[\W_]+", "-", report.title, flags=re.ASCII).strip("-")
    project = f"{quote(report.entity)}/{quote(report.project)}"
    return f"{server.page}/{project}/reports/{title}--{report.id.rstrip('=')}"
