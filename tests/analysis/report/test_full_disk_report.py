"""A report whose disk fails at any of its writes: one message, the earlier page as it was, and all of it later."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import stop_drawing
from tests.support.fabricate import fabricate_pictures, fabricate_run
from tests.support.failing_disk import FailingDisk, failing_disk

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
STEPS = ("open", "write", "sync", "rename")
KINDS = ("csv", "png", "pdf", "tex", "md", "json", "html")


class Scene:
    """A disk with an earlier report, and what the next one writes and leaves where nothing fails."""

    def __init__(self, place: Path, disk: FailingDisk) -> None:
        self.disk, self.place, self.out = disk, place, place / "reports/tiny"
        assert main(["tiny"]) == 0
        self.expected = content(self.out)
        self.page = self.expected["report.html"] + b"<!-- earlier -->"
        self.reset()
        disk.arm(None)
        assert main(["tiny"]) == 0
        self.writes = list(disk.writes)
        assert content(self.out) == self.expected

    def reset(self) -> None:
        """Bring the earlier report back."""
        (self.out / "report.html").write_bytes(self.page)


def content(folder: Path) -> dict[str, bytes]:
    """Return what the files of a folder hold, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene, once for all tests; jobs run one by one, so that writes come in the same order each time."""
    place = tmp_path_factory.mktemp("disk")
    images = fabricate_pictures(place / "pictures", each=2)
    predictions = [(path, label, label if n % 3 else "disc", 0.8) for n, (path, label) in enumerate(images)]
    for strategy, val in (("head", 0.6), ("full", 0.8)):
        more = {"predictions": predictions, "pictures": place / "pictures", "strategy": strategy, "val": val}
        fabricate_run(place / "runs/tiny", f"{strategy}-0", seed=0, **more)
    with pytest.MonkeyPatch.context() as patch, failing_disk(place / "reports") as disk:
        patch.chdir(place)
        patch.setattr(os, "sched_getaffinity", lambda _: {0})
        stop_drawing(patch)
        yield Scene(place, disk)


def fail(scene: Scene, number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Have one write fail: exit code 1, one message with the file's name, the earlier page, nothing half-written."""
    scene.reset()
    capsys.readouterr()
    scene.disk.arm(number, code)
    exit_code = main(["tiny"])
    hit = scene.disk.hit
    scene.disk.arm(None)
    message = capsys.readouterr().err
    case = f"write {number} of {len(scene.writes)}: {hit}\n{message}"
    assert hit is not None, case
    assert exit_code == 1, case
    assert message.startswith("python -m analysis: reports/tiny"), case
    assert message.count("\n") == 1, case
    assert "free" in message, case
    assert message.endswith("report.html is as it was\n"), case
    assert (scene.out / "report.html").read_bytes() == scene.page, case
    left = list(scene.out.rglob(".*"))
    assert not left or code == errno.EROFS, case  # from which nothing can be deleted either
    for path in left:
        os.utime(path, (0, 0))  # the next report deletes what is old enough to be nobody's


def finish(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Have the same command write the complete report, and tidy up."""
    assert main(["tiny"]) == 0, capsys.readouterr().err
    assert content(scene.out) == scene.expected


def test_a_disk_that_fails_at_a_write_keeps_the_earlier_report(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of file at one of the steps that write it, with one of the faults."""
    for place, kind in enumerate(KINDS):
        step, code = STEPS[place % len(STEPS)], CODES[place % len(CODES)]
        of_kind = [n for n, write in enumerate(scene.writes) if write.startswith(step) and kind in write.split(".")]
        fail(scene, of_kind[0], code, capsys)
    finish(scene, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
def test_a_disk_that_fails_at_any_write_keeps_the_earlier_report(
    code: int, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every write meets a full disk, and every third each of the other faults."""
    # Making folders comes first; they are there, so a single fault at one of them does no harm.
    folders = sum(write.startswith("folder") for write in scene.writes)
    for number in range(0 if code != errno.EIO else folders, len(scene.writes), 1 if code == errno.ENOSPC else 3):
        fail(scene, number, code, capsys)
        finish(scene, capsys)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="jobs are done one by one elsewhere")
def test_processes_side_by_side_tell_of_a_full_disk_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no fork can write, the command itself tries last, and says; nothing of theirs stays behind."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    first = next(n for n, write in enumerate(scene.writes) if write.startswith("write"))
    fail(scene, first, errno.ENOSPC, capsys)
    finish(scene, capsys)
