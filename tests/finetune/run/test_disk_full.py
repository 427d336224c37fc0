"""A run whose disk fails at any of its writes: one message, nothing torn, and the same run once there is room."""

import csv
import errno
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.__main__ import main
from finetune.run.checkpoint import load_checkpoint
from finetune.rundir import files, keys
from finetune.system import documents
from tests.support.failing_disk import FailingDisk, failing_disk
from tests.support.images import write_folder

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
FLAGS = {
    "backbone": "squeezenet1_1",
    "weights": "none",
    "strategy": "gradual",
    "image-px": 24,
    "batch-size": 8,
    "epochs": 2,
    "device": "cpu",
    "cache": "on",
    "loader-workers": 0,
}
QUICK, SEED = 8, 20  # so many of all writes are tried in the quick tests, drawn with this seed


@dataclass
class Scene:
    """A disk, the command of a small run on it, and what that leaves where nothing fails."""

    disk: FailingDisk
    root: Path
    flags: list[str]
    writes: list[str]
    expected: dict[str, Any]

    def run(self, folder: Path) -> int:
        """Run it in `folder`."""
        return main([*self.flags, f"--run-dir={folder}"])


def results(folder: Path) -> dict[str, Any]:
    """Return all of a run's results that do not depend on the clock."""
    rows = [{k: v for k, v in row.items() if _timeless(k)} for row in files.read_history(folder)[0]]
    summary = documents.read_json(folder / keys.SUMMARY) or {}
    with (folder / keys.PREDICTIONS).open() as file:
        predictions = list(csv.reader(file))
    return {
        "history": rows,
        "summary": {name: value for name, value in summary.items() if _timeless(name)},
        "predictions": predictions,
        "thumbnails": (folder / keys.THUMBNAILS).read_bytes(),
        "weights": load_checkpoint(folder / keys.BEST)["model"],
    }


def _timeless(name: str) -> bool:
    """Whether a value is the same each time; what was cached is not where the cache could not be filled."""
    clocks = ("second", "energy", "memory", "cached_share", "computed_gflops")
    return not any(word in name for word in clocks)


def cached(folder: Path) -> list[float]:
    """Return the share of the network that came from a cache, epoch by epoch."""
    return [row["cached_share"] for row in files.read_history(folder)[0]]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    weights = found.pop("weights"), expected["weights"]
    assert found == {name: value for name, value in expected.items() if name != "weights"}
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene, once for all tests: `writes` are those of a run that finds the caches empty."""
    root = tmp_path_factory.mktemp("disk")
    pictures = write_folder(root / "pictures", {"train": 10, "test": 4})
    flags = [f"--data={pictures}", *(f"--{name}={value}" for name, value in FLAGS.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_CACHE", str(root / "cache"))
        with failing_disk(root) as disk:
            scene = Scene(disk, root, flags, [], {})
            assert scene.run(root / "first") == 0  # what is done once a process is done here
            shutil.rmtree(root / "cache")
            disk.arm(None)
            assert scene.run(root / "undisturbed") == 0
            scene.writes, scene.expected = list(disk.writes), results(root / "undisturbed")
            assert_same(results(root / "first"), scene.expected)
            yield scene


def points() -> Iterator[Any]:
    """Yield which write fails, as a share of all of them, and how: some at random, and all for the slow tests."""
    chance = random.Random(SEED)
    for number in range(QUICK):
        yield pytest.param((chance.random(),), CODES[number % len(CODES)], id=f"some-{number}")
    for part in range(10):
        for code in CODES:
            # Every write meets a full disk, and every tenth each of the other faults.
            shares = tuple((part + step / 1000) / 10 for step in range(1000 if code == errno.ENOSPC else 1))
            yield pytest.param(shares, code, id=f"all-{errno.errorcode[code]}-{part}", marks=pytest.mark.slow)


@pytest.mark.parametrize(("shares", "code"), list(points()))
def test_a_disk_that_fails_at_a_write_costs_nothing(
    shares: tuple[float, ...],
    code: int,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the write is for results: exit code 1 and one message with the file's name. Else the run is finished.

    No temporary file stays, and the same command in the same process goes on to the undisturbed run's results.
    """
    monkeypatch.setenv("FINETUNE_CACHE", str(scene.root / "cache"))
    for number in sorted({int(share * len(scene.writes)) for share in shares}):
        folder = scene.root / f"run-{errno.errorcode[code]}-{number}"
        shutil.rmtree(scene.root / "cache", ignore_errors=True)
        capsys.readouterr()
        scene.disk.arm(number, code)
        ended = scene.run(folder)
        hit = scene.disk.hit
        scene.disk.arm(None)
        said = capsys.readouterr().err
        told = f"write {number} of {len(scene.writes)}: {hit}\n{said}"
        assert hit is not None, told
        assert ended in (0, 1), told
        if ended == 0:
            assert said == "", told
        else:
            assert said.startswith("WriteError: "), told
            assert said.count("\n") == 1, told
            assert str(folder) in said, told
            assert "free" in said, told
            assert not (folder / keys.SUMMARY).exists(), told
            if (folder / keys.STATE).exists():
                state = documents.read_json(folder / keys.STATE) or {}
                assert state["state"] in ("running", "failed"), told
                assert state["cause"] == ("disk" if state["state"] == "failed" else ""), told
        if code != errno.EROFS:
            hidden = [path.name for path in folder.glob(".*")] if folder.exists() else []
            assert not hidden, told
        for name in (keys.BEST, keys.LAST):
            if (folder / name).exists():
                load_checkpoint(folder / name)
        assert scene.run(folder) == 0, capsys.readouterr().err
        # What a cache has no room for is not rounded to float16, in epochs or, where these had theirs, in the test.
        unfilled = ended == 0 and "can't be filled" in (folder / keys.LOG).read_text()
        if cached(folder) == cached(scene.root / "undisturbed") and not unfilled:
            assert_same(results(folder), scene.expected)
        else:
            assert ended == 0, told
            assert "cache" in (folder / keys.LOG).read_text(), told
            found, expected = (values["summary"]["test/loss"] for values in (results(folder), scene.expected))
            assert found == pytest.approx(expected, rel=0.02), told
        shutil.rmtree(folder)


def test_only_what_is_written_below_the_folder_counts(tmp_path: Path) -> None:
    """A file elsewhere may get the number of one that was closed: its sync is none of the folder's writes."""
    (tmp_path / "in").mkdir()
    with failing_disk(tmp_path / "in") as disk:
        for opened_elsewhere in (open, os.open):
            with (tmp_path / "in" / "a").open("wb") as file:
                number = file.fileno()
                file.write(b"x")
            other = opened_elsewhere(tmp_path / "b", "wb" if opened_elsewhere is open else os.O_WRONLY)
            assert number == (other if isinstance(other, int) else other.fileno())
            os.fsync(other)
            os.close(other) if isinstance(other, int) else other.close()
    assert disk.writes == ["open a", "write a"] * 2
