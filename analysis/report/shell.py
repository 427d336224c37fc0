"""Commands that a reader is to copy: every name in them is quoted, and none comes from a run unless it is harmless."""

import shlex
from pathlib import Path

from finetune.system.output import escape_control_characters
from finetune.system.redaction import redact

OURS = ["python", "-m", "finetune"]


def command_for(*words: str | Path) -> str:
    """Return words as a line for a shell, each as it is, whatever a folder is called."""
    return shlex.join(map(str, words))


def recorded(text: object) -> str | None:
    """Return the command that a run recorded for making it anew, or None if it is anything else.

    A run directory may come from anybody. Only what a shell would pass on word for word is taken.
    """
    if not isinstance(text, str) or redact(escape_control_characters(text)) != text or "\n" in text:
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    is_ours = words[: len(OURS)] == OURS and shlex.join(words) == text
    return text if is_ours and all(word.startswith("--") for word in words[len(OURS) :: 2]) else None
