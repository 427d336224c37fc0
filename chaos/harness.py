"""One small run, what it comes to when nothing disturbs it, and copies of it that were killed half-way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos.attempt import Attempt, Point, attempt
from chaos.failpoints import nothing
from chaos.invariants import faults_of
from chaos.sandbox import SMALL, draw
from finetune.config import Config, parse_config
from finetune.resolve import resolve

# Unfreezes in each epoch, and has its frozen part cached in the first two.
RUN = {**SMALL, "strategy": "gradual", "epochs": 3, "cache": "on", "unfreeze": [[0, 0], [1, 0.5], [2, 1]]}


class Harness:
    """The run, its pictures and its results in a folder.

    Attributes:
        points: what the run passes from its start to its end.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._made = folder, 0
        self.config: Config = resolve(
            parse_config({**RUN, "data": str(draw(folder / "pictures", {"train": 6, "test": 2}))}, "chaos")
        )
        self.reference = folder / "undisturbed" / "run"
        whole = self._attempt_in(folder / "undisturbed")
        self.points: list[Point] = whole.points
        if whole.fault or faults_of(self.reference, self.reference):
            raise AssertionError(f"the undisturbed run: {whole.fault or faults_of(self.reference, self.reference)}")
        self._halfway: dict[int, Path] = {}

    def _attempt_in(
        self, folder: Path, at: int | None = None, before: Callable[[], None] = nothing, **more: Any
    ) -> Attempt:
        folder.mkdir(exist_ok=True)
        return attempt(self.config, folder, at, before, **more)

    def folder(self) -> Path:
        """Return a new folder."""
        self._made += 1
        folder = self._folder / f"try-{self._made}"
        folder.mkdir()
        return folder

    def halfway(self, line: int = 2) -> Path:
        """Return a new folder with a run that was killed in the middle of this line of its history."""
        if line not in self._halfway:
            lines = [number for number, (what, path) in enumerate(self.points) if (what, path) == LINE]
            self._halfway[line] = self.folder()
            assert self._attempt_in(self._halfway[line], lines[line - 1]).killed
        return self._copy(self._halfway[line])

    def finished(self) -> Path:
        """Return a new folder with the undisturbed run."""
        return self._copy(self.reference.parent)

    def _copy(self, made: Path) -> Path:
        folder = self.folder()
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return folder

    def crash(self, folder: Path, at: int, before: Callable[[], None] = nothing, **more: int) -> list[str]:
        """Have the run end at a point; return what went wrong otherwise."""
        ended = self._attempt_in(folder, at, before, **more)
        return [] if ended.killed else [ended.fault or f"did not come to point {at}"]

    def finish(self, folder: Path, before: Callable[[], None] = nothing) -> list[str]:
        """Run to the end, return all that is wrong with the result, and delete the folder."""
        ended = self._attempt_in(folder, before=before)
        told = [ended.fault] if ended.fault else faults_of(folder / "run", self.reference)
        shutil.rmtree(folder)
        return told

    def fill(self, folder: Path, at: int) -> list[str]:
        """Have the disk become full at a point; return what is wrong if the run ends otherwise than with a message."""
        ended = self._attempt_in(folder, at, full=True)
        told = not ended.fault or "WriteError: " in ended.fault  # what can be done without may be left out
        return [] if told else [ended.fault]

    def refused(self, folder: Path, before: Callable[[], None] = nothing) -> list[str]:
        """Try to run what another process owns; return what is wrong if that is not refused."""
        ended = self._attempt_in(folder, before=before)
        return [] if "TakenError" in ended.fault else [f"not refused: {ended.fault or 'it ran'}"]


LINE = ("write", "run/history.jsonl")
