"""Downloads: whole or not there, resumed after a cut, never a mixture, and no more than one at a time."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.errors import DiskFullError, DownloadError
from finetune.system import download as downloading
from finetune.system.download import CHUNK_BYTES, NOTE, PART, download
from tests.support import offline
from tests.support.failing_disk import failing_disk
from tests.support.file_server import Served, serving

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def fetch(served: Served, folder: Path, digest: str | None = None) -> Path:
    return download(served.url, folder / "file.zip", digest=digest)


def start(served: Served, folder: Path) -> "subprocess.Popen[bytes]":
    """Start a process that downloads the file."""
    code = f"from finetune.system.download import download, Path; download({served.url!r}, Path('file.zip'))"
    environment = {**os.environ, **offline.environment(Path.cwd())}
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment)


def alone(folder: Path) -> bool:
    """Whether nothing but the file (and the lock) is left."""
    return {path.name for path in folder.iterdir()} <= {"file.zip", "file.zip.lock"}


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    """With its progress; the second call asks nobody."""
    told: list[tuple[int, int | None]] = []
    with serving(Served(CONTENT)) as served:
        for _ in range(2):
            path = download(served.url, tmp_path / "new" / "file.zip", on_progress=lambda *counts: told.append(counts))
        assert path.read_bytes() == CONTENT
        assert served.asked == [None]
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert alone(path.parent)


def test_after_a_cut_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """Three cuts, and no more than a chunk is asked for twice."""
    step = 10 * CHUNK_BYTES
    with serving(Served(CONTENT, cut_after=[step + 1, 1, 2 * step])) as served:
        assert fetch(served, tmp_path).read_bytes() == CONTENT
        assert served.asked == [None, f"bytes={step}-", f"bytes={step}-", f"bytes={3 * step}-"]
    assert alone(tmp_path)


def test_a_killed_download_is_gone_on_with_by_the_next(tmp_path: Path) -> None:
    """SIGKILL in the middle: there is no file of that name, and the next process asks for the rest only."""
    with serving(Served(CONTENT, pause=0.02)) as served:
        process = start(served, tmp_path)
        part = tmp_path / f"file.zip{PART}"
        end = time.monotonic() + 30
        while (not part.exists() or part.stat().st_size < 1_000_000) and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "file.zip").exists()
        had = part.stat().st_size
        assert 1_000_000 <= had < len(CONTENT)
        assert fetch(served, tmp_path, DIGEST).read_bytes() == CONTENT
        assert served.asked == [None, f"bytes={had}-"]


def test_two_processes_fetch_it_once(tmp_path: Path) -> None:
    """The second waits for the first."""
    with serving(Served(CONTENT, pause=0.01)) as served:
        process = start(served, tmp_path)
        while not served.asked:
            assert process.poll() is None
            time.sleep(0.01)
        fetch(served, tmp_path)
        assert process.wait() == 0
        assert served.asked == [None]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", ['"two"', None])
def test_a_file_that_has_changed_is_fetched_from_its_beginning(tmp_path: Path, etag: str | None) -> None:
    """Its first half and the second half of another would be a file nobody has published."""
    with serving(Served(CONTENT, cut_after=[1_000_000] + 4 * [0], etag=etag and '"one"')) as served:
        with pytest.raises(DownloadError, match=r"983 kB of it are kept"):
            fetch(served, tmp_path)
        served.content, served.etag = (OTHER if etag else OTHER[:-1]), etag
        assert fetch(served, tmp_path).read_bytes() == served.content


def test_what_another_address_has_left_is_no_part_of_this_file(tmp_path: Path) -> None:
    """The part is begun anew."""
    (tmp_path / f"file.zip{PART}").write_bytes(OTHER[:1000])
    with serving(Served(CONTENT)) as served:
        assert fetch(served, tmp_path).read_bytes() == CONTENT
        assert served.asked == [None]


def test_a_damaged_note_costs_a_new_beginning(tmp_path: Path) -> None:
    """And no mixture."""
    (tmp_path / f"file.zip{PART}").write_bytes(OTHER[:1000])
    (tmp_path / f"file.zip{NOTE}").write_text("{")
    with serving(Served(CONTENT)) as served:
        assert fetch(served, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_anew(tmp_path: Path) -> None:
    """The part is cut off first."""
    with serving(Served(CONTENT, ranges=False, cut_after=[2_000_000])) as served:
        assert fetch(served, tmp_path).read_bytes() == CONTENT
        assert len(served.asked) == 2


def test_a_server_that_lies_about_the_length_is_found_out(tmp_path: Path) -> None:
    """It promises more than it has: nothing gets the file's name, and the message says what came."""
    with serving(Served(CONTENT, longer=1000)) as served, pytest.raises(DownloadError) as caught:
        fetch(served, tmp_path)
    assert "can't be downloaded" in str(caught.value)
    assert not (tmp_path / "file.zip").exists()


def test_a_damaged_file_is_deleted(tmp_path: Path) -> None:
    """Its hash is not the published one."""
    with serving(Served(OTHER)) as served, pytest.raises(DownloadError, match=f"not {DIGEST[:8]}"):
        fetch(served, tmp_path, DIGEST[:8])
    assert not list(tmp_path.glob("file.zip[!.]*"))
    assert not (tmp_path / f"file.zip{PART}").exists()


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(tmp_path: Path) -> None:
    """503 may pass; 404 will not."""
    with serving(Served(CONTENT, statuses=[503, 429])) as served:
        assert fetch(served, tmp_path).read_bytes() == CONTENT
        served.statuses, served.asked = [404], []
        with pytest.raises(DownloadError, match="answers 404"):
            download(served.url, tmp_path / "other.zip")
        assert served.asked == [None]


def test_no_connection_is_said_in_a_line(tmp_path: Path) -> None:
    """With the address, and without the wrappers of the library."""
    with pytest.raises(DownloadError, match=r"^http://127.0.0.1:9/x can't be downloaded \(no connection"):
        download("http://127.0.0.1:9/x", tmp_path / "x")


def test_a_disk_without_room_is_seen_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first byte is written."""
    monkeypatch.setattr(downloading, "SPARE_BYTES", 1e18)
    with serving(Served(CONTENT)) as served, pytest.raises(DiskFullError, match=r"needs 3 MB"):
        fetch(served, tmp_path)
    assert not (tmp_path / f"file.zip{PART}").exists()


@pytest.mark.parametrize("write", ["open lock", "open note", "write part", "write part again", "sync part", "rename"])
def test_a_disk_that_is_full_in_between_costs_nothing(tmp_path: Path, write: str) -> None:
    """The message names the file and the need; what has come is kept, and the next call asks for the rest only."""
    with serving(Served(CONTENT)) as served, failing_disk(tmp_path) as disk:
        fetch(served, tmp_path / "first")
        names = {"lock": "file.zip.lock", "note": f".file.zip{NOTE}", "part": f"file.zip{PART}", "": ""}
        what, _, rest = write.partition(" ")
        name, _, again = rest.partition(" ")
        points = [n for n, done in enumerate(disk.writes) if done.startswith(f"{what} {names[name]}")]
        at = points[-1 if again or not name else 0]
        served.asked.clear()
        disk.arm(at)
        with pytest.raises(DiskFullError) as caught:
            fetch(served, tmp_path)
        disk.arm(None)
        said, part = str(caught.value), tmp_path / f"file.zip{PART}"
        assert f"{tmp_path}/file.zip can't be written (No space left on device" in said
        assert "make room there" in said
        have = part.stat().st_size if part.exists() else 0
        assert CONTENT.startswith(part.read_bytes() if have else b"")
        assert ("of it are kept" in said) == bool(have)
        assert ("MB needed" in said) == (write.startswith("write part"))
        assert not (tmp_path / "file.zip").exists()
        served.asked.clear()
        assert fetch(served, tmp_path).read_bytes() == CONTENT
        assert served.asked == [f"bytes={have}-" if have else None]
    assert alone(tmp_path / "first")
