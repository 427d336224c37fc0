"""Each command that writes files for its user, on a disk that fails at any of the writes: one table."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.__main__ import main as analyse
from finetune.data import __main__ as data
from finetune.data.demo import images
from finetune.data.demo.images import demo_folder
from finetune.models import demo_weights
from finetune.models.weights_file import read_weights
from finetune.system.output import command
from tests.analysis.conftest import leave_figures_blank
from tests.support.fabricate import fabricate_pictures, fabricate_run
from tests.support.failing_disk import EVERY, WritingCommand, assert_each_write_keeps, failing_disk

COMMANDS: dict[str, Callable[[Path, pytest.MonkeyPatch], WritingCommand]] = {}


def row(function: Callable[[Path, pytest.MonkeyPatch], WritingCommand]) -> None:
    """Put a command into the table; the function gets a folder with pictures/, which it works in."""
    COMMANDS[function.__name__] = function


def replacing(place: Path, name: str, *words: str, below: str = "out") -> WritingCommand:
    """Return a command of `python -m finetune.data` that replaces one earlier file."""
    folder = place / below
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("earlier")
    return WritingCommand(
        lambda: data.main([words[0], "pictures", *words[1:], str(folder / name)]), folder, folder / name
    )


@row
def split(place: Path, _: pytest.MonkeyPatch) -> WritingCommand:
    return replacing(place, "mine.csv", "split", "--out", below="pictures")


@row
def check(place: Path, _: pytest.MonkeyPatch) -> WritingCommand:
    (place / "pictures/train/red/copy.png").write_bytes((place / "pictures/train/red/000.png").read_bytes())
    return replacing(place, "fix.csv", "check", "--fix-list")


@row
def show_png(place: Path, _: pytest.MonkeyPatch) -> WritingCommand:
    return replacing(place, "sheet.png", "show", "--pictures", "2", "--image-px", "24", "--out")


@row
def show_jpg(place: Path, _: pytest.MonkeyPatch) -> WritingCommand:
    return replacing(place, "sheet.jpg", "show", "--pictures", "2", "--image-px", "24", "--out")


@row
def demo_pictures(place: Path, patch: pytest.MonkeyPatch) -> WritingCommand:
    patch.setattr(images, "SPLITS", {"train": 1, "test": 1})
    patch.setenv("FINETUNE_CACHE", str(place / "cache"))
    out = place / "cache" / f"demo-pictures-{images.DEMO_VERSION}"
    return WritingCommand(lambda: command(lambda: int(demo_folder() != out))(), place / "cache", out)


@row
def demo_pretrained(place: Path, patch: pytest.MonkeyPatch) -> WritingCommand:
    patch.setattr(demo_weights, "_source", lambda *_, **__: ([], []))  # what is trained is of no matter here
    patch.setattr(demo_weights, "_fit", lambda *_: None)
    patch.setattr(demo_weights, "_accuracy", lambda *_: 0.5)
    out = place / "cache" / "demo.pt"

    def main() -> int:
        demo_weights.pretrain(out, 1, 1)
        return int(not read_weights(out).state)

    return WritingCommand(lambda: command(main)(), place / "cache", out)


@row
def report(place: Path, patch: pytest.MonkeyPatch) -> WritingCommand:
    """The files of a report replace those of an earlier one one by one, the page last."""
    fabricate_sweep(place)
    patch.chdir(place)
    patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # one process: the order of writes is fixed
    leave_figures_blank(patch)
    out = place / "reports/tiny/report.html"
    out.parent.mkdir(parents=True)
    out.write_text("earlier")
    return WritingCommand(lambda: analyse(["tiny"]), place / "reports", out, "python -m analysis: reports/tiny")


def fabricate_sweep(place: Path) -> None:
    """Write the sweep runs/tiny of two runs with predictions."""
    paths = fabricate_pictures(place / "photos", each=2)
    predictions = [(path, label, label if n % 3 else "disc", 0.8) for n, (path, label) in enumerate(paths)]
    for strategy, val in (("head", 0.6), ("full", 0.8)):
        more = {"predictions": predictions, "pictures": place / "photos", "strategy": strategy, "val": val}
        fabricate_run(place / "runs/tiny", f"{strategy}-0", seed=0, **more)


@EVERY
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_fails_at_a_write_keeps_the_earlier_file(
    name: str, every: bool, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one message, each file an earlier or a complete one; with room, the same command writes all."""
    monkeypatch.chdir(pictures.parent)
    assert_each_write_keeps(COMMANDS[name](pictures.parent, monkeypatch), capsys, every)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="jobs are done one by one elsewhere")
def test_processes_side_by_side_tell_of_a_full_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no fork of a report can write, the command itself tries last, and says; nothing of theirs stays behind."""
    made = COMMANDS["report"](tmp_path, monkeypatch)
    with failing_disk(made.folder) as disk:
        assert made.main() == 0
        made.out.write_text("earlier")
        capsys.readouterr()
        first = next(number for number, write in enumerate(disk.writes) if write.startswith("write"))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        disk.arm(first)
        assert made.main() == 1
    told = capsys.readouterr().err
    assert told.startswith(made.message)
    assert told.count("\n") == 1
    assert told.endswith("report.html is as it was\n")
    assert made.out.read_text() == "earlier"
    assert not list(made.folder.rglob(".*"))
