"""Where runs fetched from a W&B server come to lie: which of them are wanted, and how they get their place.

Nothing is deleted; what is finished here, or run by a process here, is not touched. Of where the images were on the
machine that ran it nothing is kept, so that no server can name a folder of this one. Each file is replaced whole, and
`summary.json`, which says that a run is finished, comes last, so a fetch may be interrupted at any moment.
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

ORDER = (
    keys.PREDICTIONS,
    keys.SPLITS,
    keys.THUMBNAILS,
    keys.LOG,
    keys.HISTORY,
    keys.STATE,
    keys.CONFIG,
    keys.SUMMARY,
)
STALE_SECONDS = 120.0  # a claim without a sign of life for this long holds no run (as in finetune/rundir/claim.py)


def note_origin(folder: Path, origin: SweepAddress, url: str) -> None:
    """Note in `folder` which sweep its runs belong to; a note that is there stays.

    Args:
        url: of the sweep's page.

    Raises:
        InputError: they belong to another one.
    """
    before = folder_address(folder)
    if before not in (None, origin):
        raise InputError(
            f"{folder} holds the runs of another W&B sweep, {before}. Rename it, then ask for {origin} again."
        )
    if before is None:
        told = {"entity": origin.entity, "project": origin.project, "sweep": origin.id, "url": url}
        documents.write_json(folder / keys.REMOTE, told)


def place_for(run: RemoteRun, folder: Path, name: str) -> Path:
    """Return the directory of a run; one that had no name of its own when it was last fetched gets it now."""
    before, now = folder / run.id, folder / name
    if before != now and _is_fetched(run, before) and not now.exists():
        before.rename(now)
    return now


def mark_left_over(run: RemoteRun, folder: Path) -> None:
    """Note in the directory that a run had before it had a name of its own that it is no longer kept there.

    It is left over where the name was taken when it was learned, by an earlier run or by a twin.
    """
    before = folder / run.id
    if run.directory not in (None, run.id) and _is_fetched(run, before) and not _is_finished(before):
        files.write_state(before, "killed", f"its results are in {run.directory}")


def is_wanted(run: RemoteRun, run_dir: Path) -> bool:
    """Whether the server has more of a run than there is here."""
    if _is_run_here(run_dir):
        return False
    note = _note(run, run_dir)
    is_unchanged = note.get("state") == run.state and abs(_heard(note) - run.heartbeat) < 1
    if _is_finished(run_dir):
        return run.is_finished and bool(note.get("missing")) and not is_unchanged
    if run.is_finished:
        return True
    # What this machine knows of a run that was begun here is more than what the server does.
    return not _is_begun_here(run_dir) and (run.is_alive or not is_unchanged)


def install(run: RemoteRun, place: Path, run_dir: Path, missing: list[str]) -> bool:
    """Move the files in `place` to the run's directory and note it; False if a process here has begun to run it.

    Args:
        missing: what the server should have of the run, and has not.
    """
    if _is_run_here(run_dir):
        return False
    _forget_data_root(place)
    (run_dir / keys.SUMS).unlink(missing_ok=True)  # of the files that were here
    for name in ORDER:
        if (place / name).exists():
            with replacing(run_dir / name) as temporary:
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
    documents.write_json(_note_file(run, run_dir), {**_note(run, run_dir), **told})  # what others have noted stays
    return True


def _forget_data_root(place: Path) -> None:
    """Take out of a config where the images were on the machine that ran it.

    Here a folder of that name is another one, and whoever sent the config may have named any: a report would show
    images from there, and reports are passed on.
    """
    config = files.read_config(place)
    provenance = config.pop("provenance", {})
    if "data_root" in provenance:
        del provenance["data_root"]
        files.write_config(place, config, provenance)


def _note_file(run: RemoteRun, run_dir: Path) -> Path:
    return run_dir / f"wandb-{run.id}.json"


def _note(run: RemoteRun, run_dir: Path) -> dict[str, Any]:
    """Return what is noted here of the W&B run."""
    try:
        return documents.read_json(_note_file(run, run_dir)) or {}
    except (OSError, TypeError, ValueError):
        return {}


def _heard(note: dict[str, Any]) -> float:
    """Return when the run was last heard of as the note has it, in seconds since the epoch; 0 if that is damaged."""
    try:
        return float(note.get("heartbeat") or 0)
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _is_fetched(run: RemoteRun, run_dir: Path) -> bool:
    """Whether a directory is there only because the W&B run was fetched."""
    return remote_run.is_safe(run.id) and _note_file(run, run_dir).is_file() and not _is_begun_here(run_dir)


def _is_finished(run_dir: Path) -> bool:
    return all((run_dir / name).is_file() for name in (keys.SUMMARY, keys.CONFIG))


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
        released = (documents.read_json(newest) or {}).get("released")
        return not released and time.time() - newest.stat().st_mtime < STALE_SECONDS
    except (OSError, TypeError, ValueError):
        return False
