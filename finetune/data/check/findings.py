"""Findings of a data check, the rules that make them, and the fixes that they suggest."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from finetune.data.folder_walk import IMAGE_SUFFIXES
from finetune.data.scan import suffix_of
from finetune.system.output import count_text

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
JSON_KEYS = {"advice": "mend", "images": "pictures"}  # of a finding


@dataclass(frozen=True)
class SuggestedFix:
    """A change to one file that would resolve a finding. The fields are the columns of the fix list.

    Attributes:
        path: inside the data folder.
        to: its new path, if `do` is rename.
        why: in a few words.
    """

    path: str
    do: Literal["remove", "rename"]
    to: str
    why: str


@dataclass(frozen=True)
class Finding:
    """One kind of problem, with all files that have it.

    Attributes:
        level: error if results would be wrong, warning if they may be, note for information.
        kind: a name for scripts, the same in all versions.
        advice: may be empty.
        images: a line for each file, or each group of files.
    """

    level: Level
    kind: str
    text: str
    advice: str = ""
    images: tuple[str, ...] = ()
    fixes: tuple[SuggestedFix, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding with the keys of the JSON output, which are older than the names of the fields."""
        return {JSON_KEYS.get(name, name): value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Rule:
    """One kind of finding.

    Attributes:
        text: what is wrong; the number of cases follows.
        advice: what to do about it, or what a run does.
        noun: what the cases are, and its plural if that takes more than an s.
    """

    level: Level
    kind: str
    text: str
    advice: str = ""
    noun: tuple[str, ...] = ("image",)

    def findings(self, cases: Collection[str], fixes: Collection[SuggestedFix] = (), detail: str = "") -> list[Finding]:
        """Return one finding that lists the cases, or none if there are no cases.

        Args:
            detail: ends the text.
        """
        if not cases:
            return []
        text = f"{self.text}: {count_text(len(cases), *self.noun)}{detail}"
        return [Finding(self.level, self.kind, text, self.advice, tuple(cases), tuple(fixes))]

    def findings_of_kinds(self, kinds: Mapping[str, str]) -> list[Finding]:
        """Return one finding on files whose suffix does not say what they are, with a new name for each.

        Args:
            kinds: path -> what the file is, such as JPEG.
        """
        fixes = [
            SuggestedFix(path, "rename", str(PurePosixPath(path).with_suffix(suffix)), f"it is {kind}")
            for path, kind in kinds.items()
            if (suffix := suffix_of(kind)) in IMAGE_SUFFIXES
        ]
        return self.findings([f"{path} is {kind}" for path, kind in kinds.items()], fixes)
