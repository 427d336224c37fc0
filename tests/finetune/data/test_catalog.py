"""iNaturalist-12K: fetched and unpacked once, whole or not there, and never outside of its folder."""

import io
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.__main__ import main
from finetune.data import catalog
from finetune.data.catalog import ARCHIVE, CLASSES, FOLDER, MARK
from finetune.errors import DataError, UserError
from finetune.system import archive
from finetune.system.documents import read_json
from tests.support import offline
from tests.support.failing_disk import each_write_failing
from tests.support.file_server import Served, serving
from tests.support.logs import each_log_line

PICTURES = 3  # of each class in each split


def zipped(extra: dict[str, bytes] | None = None, pictures: int = PICTURES, size: int = 200) -> bytes:
    """Return a small zip file of the same layout, with what else is to be in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        content.writestr("__MACOSX/._x", b"")
        for split in ("train", "val"):
            for name in CLASSES:
                for number in range(pictures):
                    content.writestr(f"{FOLDER}/{split}/{name}/{number}.jpg", os.urandom(size))
        for name, body in (extra or {}).items():
            content.writestr(name, body)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for data sets; few images count as whole."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "COUNTS", {"train": PICTURES * len(CLASSES), "val": PICTURES * len(CLASSES)})
    return tmp_path / "data"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with serving(Served(zipped())) as server:
        monkeypatch.setenv("FINETUNE_INATURALIST_URL", server.url)
        yield server


def test_it_is_fetched_unpacked_and_found_again(place: Path, served: Served) -> None:
    """What it was made of is recorded; the zip file is gone; nothing is asked for twice."""
    lines: list[str] = []
    with each_log_line(lines.append):
        folder = catalog.fetch_inaturalist()
    assert folder == place / FOLDER
    assert len(list(folder.glob("train/*/*.jpg"))) == PICTURES * len(CLASSES)
    assert catalog.count_mismatches(folder) == []
    mark = read_json(folder / MARK)
    assert mark is not None
    assert (mark["url"], mark["bytes"]) == (served.url, len(served.content))
    assert not (place / ARCHIVE).exists()
    assert [line.split()[0] for line in lines] == ["downloading", "unpacking"]
    assert catalog.fetch_inaturalist() == folder
    assert len(served.asked) == 1
    assert not list(place.glob(".*"))
    assert not (place / "__MACOSX").exists()


def test_a_copy_that_lies_there_is_used(
    place: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip file beside which nobody has unpacked it, which stays; the folder itself; and DATA_ROOT pointing at it."""
    place.mkdir()
    (place / ARCHIVE).write_bytes(zipped())
    folder = catalog.fetch_inaturalist()
    assert folder == place / FOLDER
    assert (place / ARCHIVE).exists()
    monkeypatch.setenv("DATA_ROOT", str(folder))
    assert catalog.fetch_inaturalist() == folder
    folder.rename(tmp_path / "photos")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "photos"))
    assert catalog.fetch_inaturalist() == tmp_path / "photos"
    assert served.asked == []


def test_a_cut_at_the_middle_is_mended(served: Served) -> None:
    """The rest is asked for, and the whole is unpacked."""
    served.cut_after = [len(served.content) // 2]
    assert catalog.fetch_inaturalist().is_dir()
    assert len(served.asked) == 2


def test_a_damaged_zip_file_is_deleted_and_fetched_again(place: Path, served: Served) -> None:
    """A byte in its middle is wrong: nothing of it is left under the data set's name."""
    good = served.content
    served.content = good[:2000] + bytes(20) + good[2020:]
    with pytest.raises(DataError, match="deleted; the same command fetches it again"):
        catalog.fetch_inaturalist()
    assert catalog.find_inaturalist() is None
    assert not (place / FOLDER).exists()
    served.content = good
    assert catalog.fetch_inaturalist().is_dir()


def link(name: str) -> bytes:
    """Return a zip file with a symbolic link in it."""
    buffer = io.BytesIO(zipped())
    with zipfile.ZipFile(buffer, "a") as content:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        content.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (zipped({"../escaped.jpg": b"x"}), "leads out"),
        (zipped({f"{FOLDER}/../../escaped.jpg": b"x"}), "leads out"),
        (zipped({"/escaped.jpg": b"x"}), "leads out"),
        (zipped({f"{FOLDER}\\..\\escaped.jpg": b"x"}), "leads out"),
        (link(f"{FOLDER}/train/Aves/link.jpg"), "is a link"),
        (b"<html>not found</html>", "no complete ZIP archive"),
        (zipped()[:-100], "no complete ZIP archive"),
        (b"", "no complete ZIP archive"),
    ],
    ids=["up", "up inside", "absolute", "backslash", "link", "html", "cut off", "empty"],
)
def test_a_hostile_or_foreign_zip_file_writes_nothing(place: Path, content: bytes, fault: str, tmp_path: Path) -> None:
    """Neither outside of the folder nor in it; a file that the user brought is not deleted."""
    place.mkdir()
    (place / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match=fault):
        catalog.fetch_inaturalist()
    assert not list(tmp_path.rglob("escaped*"))
    assert {path.name for path in place.iterdir()} == {ARCHIVE, f"{FOLDER}.lock"}


def start(setup: str = "") -> "subprocess.Popen[bytes]":
    """Start a process that fetches the data set, after executing `setup`."""
    code = f"from finetune.data import catalog\n{setup}\ncatalog.fetch_inaturalist()"
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **offline.environment(Path.cwd())})


def test_two_processes_fetch_and_unpack_it_once(place: Path, served: Served) -> None:
    """The second waits for the first, and finds what it has made."""
    served.pause = 0.5
    process = start()
    while not served.asked:
        assert process.poll() is None
        time.sleep(0.01)
    assert catalog.fetch_inaturalist().is_dir()
    assert process.wait() == 0
    assert len(served.asked) == 1
    assert len(list((place / FOLDER).glob("val/*/*.jpg"))) == PICTURES * len(CLASSES)


KILL_HALFWAY = """
import os, signal

def unpack_half(archive, folder, inside, on_progress):
    unpack(archive, folder, inside, lambda done, total: done < total / 2 or os.kill(os.getpid(), signal.SIGKILL))

unpack, catalog.unpack = catalog.unpack, unpack_half
"""


def test_killed_while_unpacking_it_begins_anew(place: Path) -> None:
    """What lies half-way is never taken for the data set, and the next attempt removes it."""
    place.mkdir()
    (place / ARCHIVE).write_bytes(zipped())
    assert start(KILL_HALFWAY).wait() == -signal.SIGKILL
    assert 0 < len(list(place.glob(f".{FOLDER}.*/*/*/*.jpg"))) < 2 * PICTURES * len(CLASSES)
    assert catalog.find_inaturalist() is None
    assert len(list(catalog.fetch_inaturalist().glob("*/*/*.jpg"))) == 2 * PICTURES * len(CLASSES)
    assert not list(place.glob(f".{FOLDER}.*"))


@pytest.mark.usefixtures("served")
def test_a_torso_is_refused_and_a_small_difference_is_told() -> None:
    """Counts as published are a warning; a third of them is no data set."""
    folder = catalog.fetch_inaturalist()
    (folder / "val" / "Aves" / "0.jpg").unlink()
    assert catalog.count_mismatches(folder) == [f"{folder / 'val'} has 29 images, 30 were published"]
    for picture in folder.glob("train/*/[12].jpg"):
        picture.unlink()
    with pytest.raises(DataError, match="10 of 30 images"):
        catalog.count_mismatches(folder)


def test_a_disk_without_room_is_seen_before_unpacking(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the zip file stays."""
    place.mkdir()
    (place / ARCHIVE).write_bytes(zipped())
    monkeypatch.setattr(archive, "SPARE_BYTES", 1e18)
    with pytest.raises(UserError, match="Make room there"):
        catalog.fetch_inaturalist()
    assert (place / ARCHIVE).exists()


def test_a_disk_that_is_full_in_between_costs_nothing(
    place: Path, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that needs it ends with a message and exit code 1, and nothing half-way; the next fetches what is left."""

    def fetched_by_a_run() -> int:
        ended = main(["--data", "inaturalist12k", "--weights", "none", "--run-dir", str(tmp_path / "run"), "--lr", "1"])
        return 0 if (place / FOLDER / MARK).exists() else ended

    place.mkdir()
    whole = sorted(f"{split}/{name}" for split in ("train", "val") for name in CLASSES)
    for ended, told in each_write_failing(place, fetched_by_a_run, step=19):
        said = capsys.readouterr().err
        assert ended == 1, f"{told}\n{said}"
        assert "DiskFullError: " in said, f"{told}\n{said}"
        assert "can't be written (No space left on device" in said, f"{told}\n{said}"
        assert "Traceback" not in said
        assert {path.name for path in place.glob("*")} <= {ARCHIVE, f"{ARCHIVE}.part", f"{ARCHIVE}.part.json",
                                                           f"{ARCHIVE}.lock", f"{FOLDER}.lock", FOLDER}  # fmt: skip
        if (place / FOLDER).exists():  # whole
            assert sorted(str(path.relative_to(place / FOLDER)) for path in place.glob(f"{FOLDER}/*/*")) == whole
    assert len(served.asked) < 3  # what is whole, or has come so far, is not fetched again
