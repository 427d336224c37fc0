"""Commands for the reader to copy: all names are quoted, and a command that a run recorded is checked first."""

import shlex
from pathlib import Path

from finetune.system.output import escape_control_characters
from finetune.system.redaction import redact

TRAIN = ["python", "-m", "finetune"]


def shell_command(*words: str | Path) -> str:
    """Return the words as one line for a shell, quoted where needed."""
    return shlex.join(map(str, words))


def recorded_command(text: object) -> str | None:
    """Return the command that a run recorded to reproduce it, or None if it is anything else.

    Run directories may come from other people, so a command is accepted only if a shell expands nothing in it.
    """
    if not isinstance(text, str) or redact(escape_control_characters(text)) != text or "\n" in text:
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    is_training = words[: len(TRAIN)] == TRAIN and shlex.join(words) == text
    return text if is_training and all(word.startswith("--") for word in words[len(TRAIN) :: 2]) else None
