"""The stop file of a run: whoever creates it asks the run to end after its epoch, and be tested.

The run records in it after which epoch it ended. If it must resume from an earlier checkpoint because the last one is
damaged, it ends after the same epoch again.
"""

import contextlib
import re
from pathlib import Path

from finetune.rundir.keys import STOP
from finetune.system.atomic import write_atomic

_RECORD = re.compile(r"^ended after epoch (\d{1,9})$", re.MULTILINE)


def is_requested(run_dir: Path, epochs: int) -> bool:
    """Return whether a run with `epochs` finished epochs should end now."""
    try:
        record = _RECORD.search((run_dir / STOP).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    return record is None or epochs >= int(record[1])


def ends_run(run_dir: Path, epochs: int) -> bool:
    """Return whether the run should end now, and record the epoch in the stop file if so."""
    requested = is_requested(run_dir, epochs)
    if requested:
        with contextlib.suppress(OSError):  # on a full disk the epoch is not recorded
            text = (run_dir / STOP).read_text(encoding="utf-8", errors="replace")
            if not _RECORD.search(text):
                write_atomic(run_dir / STOP, f"{text.rstrip()}\nended after epoch {epochs}\n".lstrip())
    return requested
