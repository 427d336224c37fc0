"""The stop file of a run, which asks it to end after its epoch and to be tested; an agent or a hand puts it there.

The run notes in it after which epoch it ended. Should it have to go back, as its checkpoint is damaged, it ends there
again, and not earlier.
"""

import contextlib
import re
from pathlib import Path

from finetune.rundir.keys import STOP
from finetune.system.atomic import write_atomic

_NOTE = re.compile(r"^ended after epoch (\d{1,9})$", re.MULTILINE)


def is_requested(run_dir: Path, epochs: int) -> bool:
    """Whether a run with so many finished epochs is to end there."""
    try:
        found = _NOTE.search((run_dir / STOP).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    return found is None or epochs >= int(found[1])


def ends_run(run_dir: Path, epochs: int) -> bool:
    """The same, and noted if it is."""
    due = is_requested(run_dir, epochs)
    if due:
        with contextlib.suppress(OSError):  # on a full disk; then it ends earlier, should it have to go back
            text = (run_dir / STOP).read_text(encoding="utf-8", errors="replace")
            if not _NOTE.search(text):
                write_atomic(run_dir / STOP, f"{text.rstrip()}\nended after epoch {epochs}\n".lstrip())
    return due
