"""Where runs fetched from a W&B server come to lie: which of them are wanted, and how they get their place.

Nothing is deleted; what is finished here, or run by a process here, is not touched. Each file is replaced whole, and
`summary.json`, which says that a run is finished, comes last, so a fetch may be interrupted at any moment.
"""

import os
import time
from pathlib import Path
from typing import Any

from analysis import address, remote_run
from analysis.address import Address
from analysis.errors import InputError
from analysis.remote_run import RemoteRun
from finetune import record

ORDER = (
    record.PREDICTIONS,
    record.SPLITS,
    record.THUMBNAILS,
    record.LOG,
    record.HISTORY,
    record.STATE,
    record.CONFIG,
    record.SUMMARY,
)
STALE_SECONDS = 120.0  # a claim without a sign of life for this long holds no run (as in finetune/claim.py)


def note_origin(folder: Path, origin: Address, url: str) -> None:
    """Note in `folder` which sweep its runs belong to; a note that is there stays.

    Args:
        url: of the sweep's page.

    Raises:
        InputError: they belong to another one.
    """
    before = address.of_folder(folder)
    if before not in (None, origin):
        raise InputError(
            f"{folder} holds the runs of another W&B sweep, {before}. Rename it, then ask for {origin} again."
        )
    if before is None:
        told = {"entity": origin.entity, "project": origin.project, "sweep": origin.sweep, "url": url}
        record.write_json(folder / record.REMOTE, told)


def place_for(run: RemoteRun, folder: Path, name: str) -> Path:
    """Return the directory of a run; one that had no name of its own when it was last fetched gets it now."""
    before, now = folder / run.id, folder / name
    is_ours = remote_run.is_safe(run.id) and _note_file(run, before).is_file()
    if before != now and is_ours and not _is_begun_here(before) and not now.exists():
        before.rename(now)
    return now


def is_wanted(run: RemoteRun, run_dir: Path) -> bool:
    """Whether the server has more of a run than there is here."""
    if _is_run_here(run_dir):
        return False
    note = _note(run, run_dir)
    is_unchanged = note.get("state") == run.state and abs(float(note.get("heartbeat") or 0) - run.heartbeat) < 1
    if _is_finished(run_dir):
        return run.is_finished and bool(note.get("missing")) and not is_unchanged
    if run.is_finished:
        return True
    # What this machine knows of a run that was begun here is more than what the server does.
    return not _is_begun_here(run_dir) and (run.is_alive or not is_unchanged)


def land(run: RemoteRun, place: Path, run_dir: Path, missing: list[str]) -> bool:
    """Move the files in `place` to the run's directory and note it; False if a process here has begun to run it.

    Args:
        missing: what the server should have of the run, and has not.
    """
    if _is_run_here(run_dir):
        return False
    for name in ORDER:
        if (place / name).exists():
            with record.replacing(run_dir / name) as temporary:
                (place / name).replace(temporary)
                if run.heartbeat:  # when the sweep last changed is not when it was fetched
                    os.utime(temporary, (run.heartbeat, run.heartbeat))
    told = {
        "path": run.path,
        "state": run.state,
        "heartbeat": run.heartbeat,
        "missing": missing,
        "complete": run.is_finished and not missing,
    }
    record.write_json(_note_file(run, run_dir), {**_note(run, run_dir), **told})  # what others have noted stays
    return True


def _note_file(run: RemoteRun, run_dir: Path) -> Path:
    return run_dir / f"wandb-{run.id}.json"


def _note(run: RemoteRun, run_dir: Path) -> dict[str, Any]:
    """Return what is noted here of the W&B run."""
    try:
        return record.read_json(_note_file(run, run_dir)) or {}
    except (OSError, TypeError, ValueError):
        return {}


def _is_finished(run_dir: Path) -> bool:
    return all((run_dir / name).is_file() for name in (record.SUMMARY, record.CONFIG))


def _is_begun_here(run_dir: Path) -> bool:
    return any(run_dir.glob("claim-*.json"))


def _is_run_here(run_dir: Path) -> bool:
    """Whether a process holds the newest claim, as far as its file tells: not released, and not silent for long."""
    claims = {path.stem.removeprefix("claim-"): path for path in run_dir.glob("claim-*.json")}
    numbers = [int(number) for number in claims if number.isdigit()]
    if not numbers:
        return False
    newest = claims[str(max(numbers))]
    try:
        released = (record.read_json(newest) or {}).get("released")
        return not released and time.time() - newest.stat().st_mtime < STALE_SECONDS
    except (OSError, TypeError, ValueError):
        return False
