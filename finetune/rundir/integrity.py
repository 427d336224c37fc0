"""The checksums of a finished run: SHA256SUMS in its directory, which `sha256sum -c SHA256SUMS` checks too.

They reveal files that a disk or a copy has damaged, or a person has edited. Checkpoints carry their own checksums
(system/checksums.py). Runs that an earlier version finished, or that were fetched, have none, and count as intact.
"""

import errno
import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from finetune.rundir import keys
from finetune.system import documents
from finetune.system.atomic import write_atomic
from finetune.system.checksums import quarantine, zip_fault

logger = logging.getLogger(__name__)

CHECKED_FILES = (keys.SUMMARY, keys.CONFIG, keys.HISTORY, keys.PREDICTIONS, keys.SPLITS)  # what results rest on
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.]+)")


def write_checksums(run_dir: Path, pending: Mapping[str, str]) -> None:
    """Write the checksums of the files of a run that is about to finish.

    Args:
        pending: name -> text of the files that are written next.
    """
    names = [name for name in (*CHECKED_FILES, keys.THUMBNAILS) if name not in pending and (run_dir / name).is_file()]
    digests = {name: _digest((run_dir / name).read_bytes()) for name in names}
    digests |= {name: _digest(text.encode()) for name, text in pending.items()}
    write_atomic(run_dir / keys.SUMS, "".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def mismatched_files(run_dir: Path, names: Collection[str] = CHECKED_FILES) -> list[str]:
    """Return the files among `names` that differ from their checksums. A missing file is not damaged."""
    path = run_dir / keys.SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    digests = {match[2]: match[1] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
    return [name for name in names if (run_dir / name).is_file() and not _matches(run_dir / name, digests.get(name))]


def _matches(path: Path, digest: str | None) -> bool:
    if digest is not None:
        try:
            return _digest(path.read_bytes()) == digest
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False  # an unreadable part of the disk
    if path.name != keys.SUMMARY:
        return True
    try:
        return documents.read_json(path) is not None
    except ValueError:
        return False


def damaged_files(run_dir: Path, checkpoints: bool = True) -> list[str]:
    """Return the damaged files of a finished run: those of `mismatched_files`, and best.pt.

    Args:
        checkpoints: whether to check best.pt; without it the run may have to train again.
    """
    best = run_dir / keys.BEST
    bad = mismatched_files(run_dir, (*CHECKED_FILES, keys.THUMBNAILS))
    return [*bad, keys.BEST] if checkpoints and best.is_file() and zip_fault(best) else bad


def quarantine_damaged(run_dir: Path, checkpoints: bool = True) -> bool:
    """Rename the damaged files of a finished run, and its summary, so that the run counts as unfinished.

    The caller holds the claim, or nobody does.

    Args:
        checkpoints: see `damaged_files`.

    Returns:
        Whether the run is still finished.
    """
    if not (run_dir / keys.SUMMARY).is_file():
        return False
    bad = damaged_files(run_dir, checkpoints)
    if bad and keys.SUMMARY not in bad:
        quarantine(run_dir / keys.SUMMARY)  # first: even if this process is killed now, the run counts as unfinished
    for name in bad:
        renamed = quarantine(run_dir / name)
        logger.info(f"{run_dir.name}: {name} is damaged: renamed to {renamed.name}; will be rebuilt")
    return not bad


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
