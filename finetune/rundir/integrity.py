"""The checksums of a finished run: SHA256SUMS in its directory, which `sha256sum -c SHA256SUMS` checks, too.

They tell a file that a disk or a copy has damaged, or a hand has edited. The checkpoints are not among them: they carry
their own (see checksums.py). Runs that an earlier version finished, or that were fetched, have none, and are believed.
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


def write_checksums(run_dir: Path, to_come: Mapping[str, str]) -> None:
    """Write the checksums of the files of a run that is about to be finished.

    Args:
        to_come: the texts of files that are going to be written next, by name.
    """
    names = [name for name in (*CHECKED_FILES, keys.THUMBNAILS) if name not in to_come and (run_dir / name).is_file()]
    digests = {name: _digest((run_dir / name).read_bytes()) for name in names}
    digests |= {name: _digest(text.encode()) for name, text in to_come.items()}
    write_atomic(run_dir / keys.SUMS, "".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def mismatched_files(run_dir: Path, names: Collection[str] = CHECKED_FILES) -> list[str]:
    """Return which of these files of a finished run are not as it left them. One that is gone is not damaged."""
    path = run_dir / keys.SUMS
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    known = {match[2]: match[1] for line in text.splitlines() if (match := _LINE.fullmatch(line))}
    return [name for name in names if (run_dir / name).is_file() and not _is_right(run_dir / name, known.get(name))]


def _is_right(path: Path, digest: str | None) -> bool:
    if digest is not None:
        try:
            return _digest(path.read_bytes()) == digest
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False  # a part of the disk that can't be read any more
    if path.name != keys.SUMMARY:
        return True
    try:
        return documents.read_json(path) is not None
    except ValueError:
        return False


def damaged_files(run_dir: Path, checkpoints: bool = True) -> list[str]:
    """Return the files of a finished run that are damaged and would have to be made anew; see `damaged`.

    Args:
        checkpoints: whether best.pt counts, too, without which the run may have to be trained again.
    """
    best = run_dir / keys.BEST
    bad = mismatched_files(run_dir, (*CHECKED_FILES, keys.THUMBNAILS))
    return [*bad, keys.BEST] if checkpoints and best.is_file() and zip_fault(best) else bad


def quarantine_damaged(run_dir: Path, checkpoints: bool = True) -> bool:
    """Set aside what is damaged in a finished run, and the summary with it, so that the run is to be finished again.

    To be called by who holds the claim, or where nobody does.

    Args:
        checkpoints: see `faults`.

    Returns:
        Whether the run is finished still.
    """
    if not (run_dir / keys.SUMMARY).is_file():
        return False
    bad = damaged_files(run_dir, checkpoints)
    if bad and keys.SUMMARY not in bad:
        quarantine(run_dir / keys.SUMMARY)  # first: were this process killed, what is gone would not be missed
    for name in bad:
        logger.info(
            f"{run_dir.name}: {name} is damaged: set aside as {quarantine(run_dir / name).name}; it is made anew"
        )
    return not bad


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
