"""One small run, its undisturbed result, and copies of it that were killed half-way."""

import shutil
from collections.abc import Callable
from pathlib import Path

from chaos.attempt import Attempt, Disturbance, attempt_run
from chaos.failpoints import Point, do_nothing
from chaos.invariants import violations
from chaos.sandbox import SMALL_RUN, draw_images
from finetune.config import parse_config
from finetune.resolve import resolve

# Unfreezes in each epoch, and caches its frozen prefix in the first two.
RUN = {**SMALL_RUN, "strategy": "gradual", "epochs": 3, "cache": "on", "unfreeze": [[0, 0], [1, 0.5], [2, 1]]}
HISTORY_WRITE: Point = ("write", "run/history.jsonl")


class Harness:
    """The run, its images and its results, in a folder.

    Attributes:
        reference: directory of the undisturbed run.
        points: the fail points of the undisturbed run, in order.
    """

    def __init__(self, folder: Path) -> None:
        images = draw_images(folder / "pictures", {"train": 6, "test": 2})
        self.config = resolve(parse_config({**RUN, "data": str(images)}, "chaos"))
        self._folder = folder
        self._folders = 0
        self._halfway: dict[int, Path] = {}
        self.reference = folder / "undisturbed" / "run"
        undisturbed = self._attempt(self.reference.parent, Disturbance())
        self.points = undisturbed.points
        if problems := undisturbed.error or violations(self.reference, self.reference):
            raise AssertionError(f"the undisturbed run: {problems}")

    def _attempt(self, folder: Path, disturbance: Disturbance) -> Attempt:
        folder.mkdir(exist_ok=True)
        return attempt_run(self.config, folder, disturbance)

    def new_folder(self) -> Path:
        """Return a new, empty folder for attempts."""
        self._folders += 1
        folder = self._folder / f"try-{self._folders}"
        folder.mkdir()
        return folder

    def killed_halfway(self, line: int = 2) -> Path:
        """Return a new folder with a run that was killed in the middle of this line of its history."""
        if line not in self._halfway:
            writes = [number for number, point in enumerate(self.points) if point == HISTORY_WRITE]
            self._halfway[line] = self.new_folder()
            assert self._attempt(self._halfway[line], Disturbance(kill_at=writes[line - 1])).was_killed
        return self._copy(self._halfway[line])

    def finished(self) -> Path:
        """Return a new folder with the undisturbed run."""
        return self._copy(self.reference.parent)

    def _copy(self, source: Path) -> Path:
        return Path(shutil.copytree(source, self.new_folder(), dirs_exist_ok=True))

    def crash(self, folder: Path, disturbance: Disturbance) -> list[str]:
        """Kill the run at the disturbance's point; return the problem if it was not killed there."""
        attempt = self._attempt(folder, disturbance)
        return [] if attempt.was_killed else [attempt.error or f"did not come to point {disturbance.kill_at}"]

    def fill_disk(self, folder: Path, point: int) -> list[str]:
        """Run on a disk that is full from this point on; return the problem if the run fails without a message."""
        attempt = self._attempt(folder, Disturbance(full_from=point))
        # A run may leave out files that it can do without.
        is_reported = not attempt.error or "WriteError: " in attempt.error
        return [] if is_reported else [attempt.error]

    def refuse(self, folder: Path, prepare: Callable[[], None] = do_nothing) -> list[str]:
        """Start a run that another process owns; return the problem if it is not refused."""
        attempt = self._attempt(folder, Disturbance(prepare=prepare))
        return [] if "RunTakenError" in attempt.error else [f"not refused: {attempt.error or 'it ran'}"]

    def finish(self, folder: Path, prepare: Callable[[], None] = do_nothing) -> list[str]:
        """Run to the end, delete the folder, and return all violations in the result."""
        attempt = self._attempt(folder, Disturbance(prepare=prepare))
        problems = [attempt.error] if attempt.error else violations(folder / "run", self.reference)
        shutil.rmtree(folder)
        return problems
