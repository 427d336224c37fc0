"""Decides which runs of a W&B server to fetch, and installs them as run directories.

Deletes nothing, and leaves alone runs that are finished here or run by a local process. Each file is replaced
atomically, and `summary.json`, which marks a run as finished, comes last: a fetch may be interrupted at any moment.
"""

import os
import time
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from analysis.sources.wandb import remote_run
from analysis.sources.wandb.remote_run import RemoteRun
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import replacing
from finetune.tracking.sweep_address import SweepAddress, folder_address

INSTALL_ORDER = (
    keys.PREDICTIONS,
    keys.SPLITS,
    keys.THUMBNAILS,
    keys.LOG,
    keys.HISTORY,
    keys.STATE,
    keys.CONFIG,
    keys.SUMMARY,
)
STALE_SECONDS = 120.0  # a claim this old has expired (see finetune/rundir/claim.py)


def note_origin(folder: Path, origin: SweepAddress, url: str) -> None:
    """Record in `folder` which sweep its runs belong to, unless it is recorded already.

    Args:
        url: of the sweep's page.

    Raises:
        InputError: they belong to another sweep.
    """
    recorded = folder_address(folder)
    if recorded not in (None, origin):
        raise InputError(
            f"{folder} holds the runs of another W&B sweep, {recorded}. Rename it, then ask for {origin} again."
        )
    if recorded is None:
        content = {"entity": origin.entity, "project": origin.project, "sweep": origin.id, "url": url}
        documents.write_json(folder / keys.REMOTE, content)


def directory_for(run: RemoteRun, folder: Path, name: str) -> Path:
    """Return the directory of a run, renamed if it was fetched under its id before its name was known."""
    early, final = folder / run.id, folder / name
    if early != final and _is_fetched(run, early) and not final.exists():
        early.rename(final)
    return final


def mark_superseded(run: RemoteRun, folder: Path) -> None:
    """Mark the directory that a run was fetched to under its id, if another run has the directory of its name."""
    early = folder / run.id
    if run.directory not in (None, run.id) and _is_fetched(run, early) and not _is_finished(early):
        files.write_state(early, "killed", f"its results are in {run.directory}")


def needs_fetch(run: RemoteRun, run_dir: Path) -> bool:
    """Whether the server has more of a run than its local directory."""
    if _is_run_here(run_dir):
        return False
    record = _read_record(run, run_dir)
    is_unchanged = record.get("state") == run.state and abs(_heartbeat(record) - run.heartbeat) < 1
    if _is_finished(run_dir):
        return run.is_finished and bool(record.get("missing")) and not is_unchanged
    if run.is_finished:
        return True
    # Of a run that was begun here, this machine has more than the server.
    return not _is_begun_here(run_dir) and (run.is_alive or not is_unchanged)


def install(run: RemoteRun, fetched: Path, run_dir: Path, missing: list[str]) -> bool:
    """Move the files in `fetched` to the run's directory and record it; False if a local process has begun the run.

    Args:
        missing: files of the run that the server should have but lacks.
    """
    if _is_run_here(run_dir):
        return False
    _remove_data_root(fetched)
    (run_dir / keys.SUMS).unlink(missing_ok=True)  # checksums of the previous files
    for name in INSTALL_ORDER:
        if (fetched / name).exists():
            with replacing(run_dir / name) as temporary:
                (fetched / name).replace(temporary)
                if run.heartbeat:  # the newest sweep is found by these times, not by when it was fetched
                    os.utime(temporary, (run.heartbeat, run.heartbeat))
    record = {
        "path": run.path,
        "state": run.state,
        "heartbeat": run.heartbeat,
        "missing": missing,
        "complete": run.is_finished and not missing,
    }
    documents.write_json(_record_path(run, run_dir), {**_read_record(run, run_dir), **record})  # keeps other keys
    return True


def _remove_data_root(fetched: Path) -> None:
    """Remove the image folder of the machine that ran the run from the config.

    Otherwise a server could name any local folder, and the report would show images from it.
    """
    config = files.read_config(fetched)
    provenance = config.pop("provenance", {})
    if "data_root" in provenance:
        del provenance["data_root"]
        files.write_config(fetched, config, provenance)


def _record_path(run: RemoteRun, run_dir: Path) -> Path:
    return run_dir / f"wandb-{run.id}.json"


def _read_record(run: RemoteRun, run_dir: Path) -> dict[str, Any]:
    """Return what is recorded of the W&B run; {} if nothing, or if the file is damaged."""
    try:
        return documents.read_json(_record_path(run, run_dir)) or {}
    except (OSError, TypeError, ValueError):
        return {}


def _heartbeat(record: dict[str, Any]) -> float:
    """Return the recorded heartbeat in seconds since the epoch; 0 if it is damaged."""
    try:
        return float(record.get("heartbeat") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _is_fetched(run: RemoteRun, run_dir: Path) -> bool:
    """Whether a directory exists only because the W&B run was fetched."""
    return remote_run.is_safe(run.id) and _record_path(run, run_dir).is_file() and not _is_begun_here(run_dir)


def _is_finished(run_dir: Path) -> bool:
    return all((run_dir / name).is_file() for name in (keys.SUMMARY, keys.CONFIG))


def _is_begun_here(run_dir: Path) -> bool:
    return any(run_dir.glob("claim-*.json"))


def _is_run_here(run_dir: Path) -> bool:
    """Whether a process holds the newest claim: neither released nor expired."""
    claims = {path.stem.removeprefix("claim-"): path for path in run_dir.glob("claim-*.json")}
    numbers = [int(number) for number in claims if number.isdigit()]
    if not numbers:
        return False
    newest = claims[str(max(numbers))]
    try:
        released = (documents.read_json(newest) or {}).get("released")
        return not released and time.time() - newest.stat().st_mtime < STALE_SECONDS
    except (OSError, TypeError, ValueError):
        return False
