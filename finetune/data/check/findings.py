"""What a check of the data reports: findings, made by rules, and the fixes that they suggest."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from finetune.data.layout import IMAGE_SUFFIXES
from finetune.data.scan import suffix_of
from finetune.system.output import count_text

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class SuggestedFix:
    """A change to one file that would resolve a finding. The fields are the columns of the fix list.

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
    """One kind of problem, with all files that have it. The fields are the keys of the JSON output.

    Attributes:
        level: error, where results would be wrong; warning, where they may be; note, for what is good to know.
        kind: its name, which stays the same from version to version, for scripts.
        text: what it is, and how often.
        mend: advice; may be empty.
        pictures: a line for each file, or each group of files.
        fixes: suggested for the files.
    """

    level: Level
    kind: str
    text: str
    mend: str = ""
    pictures: tuple[str, ...] = ()
    fixes: tuple[SuggestedFix, ...] = ()


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
