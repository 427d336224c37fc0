"""What a check of the data has found: how bad it is, where, and how to mend it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class SuggestedFix:
    """What would mend one file.

    Attributes:
        path: inside the data folder.
        do: remove it from the data, or rename it.
        to: its new path, where it is to be renamed.
        why: in a few words.
    """

    path: str
    do: Literal["remove", "rename"]
    to: str
    why: str


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is not as it should be.

    Attributes:
        level: error, where results would be wrong; warning, where they may be; note, for what is good to know.
        kind: a name for it that stays, for scripts.
        text: a sentence that says what it is, and how often.
        mend: a sentence that says what to do about it, or what is done; may be empty.
        pictures: a line for each file, or each group of files.
        fixes: what would mend it, file by file.
    """

    level: Level
    kind: str
    text: str
    mend: str = ""
    pictures: tuple[str, ...] = ()
    fixes: tuple[SuggestedFix, ...] = ()


def count_text(number: int, one: str, several: str = "") -> str:
    """Return a number and what it counts, such as 1 picture and 2 pictures."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
