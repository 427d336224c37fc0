"""The store: entries are whole or not there, made once, resumable after any end, and bounded."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.cache import entry_writer, store
from finetune.errors import RunInterrupted, UserError
from finetune.system import checksums, documents
from tests.support.faults import flip
from tests.support.logs import each_log_line

# Fills an entry with rows of 1,000 equal bytes, and says so in a file when it is the one that does.
BUILDER = """
import sys, time
from pathlib import Path
from finetune.cache import entry_writer, store
entry_writer.NOTE_SECONDS, entry_writer.BUFFER_BYTES = 0.02, 512  # so that a kill finds bytes beyond the note
rows, pause, filled_by = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
with store.writing_entry("numbers-1") as writer:
    if writer is not None:
        with filled_by.open("a") as file:
            file.write("filled it\\n")
        for row in range(writer.rows, rows):
            writer.append({"a.bin": bytes([row % 251]) * 1000, "b.bin": bytes([row % 251])}, rows=1)
            time.sleep(pause)
        writer.finish({})
"""


def start_builder(rows: int, pause: float, filled_by: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(rows), str(pause), str(filled_by)])


def rows_of(count: int) -> tuple[bytes, bytes]:
    return b"".join(bytes([row % 251]) * 1000 for row in range(count)), bytes(row % 251 for row in range(count))


def make(name: str, size: int, age_seconds: float = 0.0) -> Path:
    """Make an entry of `size` bytes that was last used so long ago."""
    with store.writing_entry(name) as writer:
        assert writer is not None
        writer.append({"data.bin": bytes(size)}, rows=1)
        entry = writer.finish({})
    used = time.time() - age_seconds
    os.utime(entry / entry_writer.ABOUT, (used, used))
    return entry


def contents(entry: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entry.glob("*.bin")}


def fail_in(name: str, size: int, error: Exception) -> None:
    """Append `size` bytes to a draft, and fail there."""
    with store.writing_entry(name) as writer:
        assert writer is not None
        writer.append({"data.bin": bytes(size)}, rows=1)
        raise error


def leave_draft(name: str, size: int) -> Path:
    """Leave a draft of `size` bytes as an interrupted process would."""
    with pytest.raises(RunInterrupted):
        fail_in(name, size, RunInterrupted("stopped"))
    return store.entries_folder() / f"{name}.part"


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the store 10 kB."""
    monkeypatch.setenv("FINETUNE_CACHE_GB", "0.00001")


def test_an_entry_is_found_once_it_is_finished() -> None:
    """Before, there is nothing to find; after, the files hold what was appended and `about` the given values."""
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        writer.append({"a.bin": np.arange(6, dtype=np.float16).reshape(2, 3)}, rows=2)
        writer.append({"a.bin": np.arange(3, dtype=np.float16)}, rows=1)
        assert (writer.rows, writer.size("a.bin")) == (3, 18)
        assert store.find_entry("numbers-1") is None
        entry = writer.finish({"shape": [3, 3]})
    assert store.find_entry("numbers-1") == entry
    assert np.fromfile(entry / "a.bin", np.float16).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    about = checksums.read_checked_json(entry / entry_writer.ABOUT)
    assert about == {"shape": [3, 3], "files": {"a.bin": 18}, "sums": {"a.bin": zlib.crc32(contents(entry)["a.bin"])}}
    assert sorted(path.name for path in entry.iterdir()) == ["a.bin", "about.json"]
    with store.writing_entry("numbers-1") as writer:
        assert writer is None


def test_equal_values_have_equal_keys() -> None:
    """Neither the order of names nor tuple or list make a difference; a value does."""
    assert store.key_of(a=1, b=[1, 2]) == store.key_of(b=(1, 2), a=1)
    assert store.key_of(a=1) != store.key_of(a=2)
    assert len(store.key_of(a=1)) == 16


def test_an_exception_keeps_what_was_appended() -> None:
    """The next process goes on after the rows of the interrupted one."""
    leave_draft("numbers-1", 100)
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        assert writer.rows == 1
        writer.append({"data.bin": b"x" * 10}, rows=1)
        entry = writer.finish({})
    assert (entry / "data.bin").read_bytes() == bytes(100) + b"x" * 10


def test_a_kill_at_any_moment_leaves_no_torn_rows(tmp_path: Path) -> None:
    """After SIGKILL, twice, in the middle of appending, the finished files are those of an undisturbed process."""
    progress = store.entries_folder() / "numbers-1.part" / "progress.json"
    reached = 0
    for _ in range(2):
        process = start_builder(100_000, 0.0005, tmp_path / "filled-by")
        deadline = time.monotonic() + 60
        while not progress.exists() or (documents.read_json(progress) or {})["rows"] <= reached:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        reached = (documents.read_json(progress) or {})["rows"]
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        assert writer.rows == reached > 0
        for row in range(writer.rows, reached + 50):
            writer.append({"a.bin": bytes([row % 251]) * 1000, "b.bin": bytes([row % 251])}, rows=1)
        entry = writer.finish({})
    assert ((entry / "a.bin").read_bytes(), (entry / "b.bin").read_bytes()) == rows_of(reached + 50)


def test_bytes_after_the_last_note_are_cut_off() -> None:
    """What a crash left behind the noted sizes, and files that were never noted, are not part of the entry."""
    part = leave_draft("numbers-1", 100)
    with (part / "data.bin").open("ab") as file:
        file.write(b"torn")
    (part / "unknown.bin").write_bytes(b"torn")
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        writer.append({"data.bin": b"x"}, rows=1)
        entry = writer.finish({})
    assert (entry / "data.bin").read_bytes() == bytes(100) + b"x"
    assert not (entry / "unknown.bin").exists()


@pytest.mark.parametrize("damage", ["shorter", "missing", "note"])
def test_a_damaged_draft_is_begun_anew(damage: str) -> None:
    """A draft whose files are shorter than noted (a power cut), or whose note can't be read, has no rows."""
    part = leave_draft("numbers-1", 100)
    if damage == "shorter":
        os.truncate(part / "data.bin", 99)
    elif damage == "missing":
        (part / "data.bin").unlink()
    else:
        (part / "progress.json").write_text("{")
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        assert writer.rows == 0
        writer.append({"data.bin": b"x"}, rows=1)
        assert (writer.finish({}) / "data.bin").read_bytes() == b"x"


def test_of_two_processes_one_fills_and_the_other_waits(tmp_path: Path) -> None:
    """Both end with the whole entry, which was filled once."""
    filled_by = tmp_path / "filled-by"
    processes = [start_builder(300, 0.001, filled_by) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert filled_by.read_text() == "filled it\n"
    entry = store.find_entry("numbers-1")
    assert entry is not None
    assert (entry / "a.bin").read_bytes() == rows_of(300)[0]


def test_waiting_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits calls `on_wait` again and again, and ends when asked to; the one that fills goes on."""
    monkeypatch.setattr("finetune.system.locks.POLL_SECONDS", 0.01)
    waits: list[float | None] = []
    callbacks = store.FillCallbacks(waits.append, lambda: len(waits) == 3)
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        with (
            pytest.raises(RunInterrupted),
            store.writing_entry("numbers-1", callbacks),
        ):
            pytest.fail("the draft is another's")
        writer.append({"data.bin": b"x"}, rows=1)
        writer.finish({})
    assert len(waits) == 3
    assert store.find_entry("numbers-1") is not None


def test_a_full_disk_has_the_draft_removed_and_other_errors_do_not() -> None:
    """On a full disk a draft that can't be finished is in the way; after another error it can be gone on with."""
    for code, kept in ((errno.EIO, True), (errno.ENOSPC, False)):
        with pytest.raises(OSError, match="no luck"):
            fail_in("numbers-1", 1, OSError(code, "no luck"))
        assert (store.entries_folder() / "numbers-1.part").exists() == kept
    assert store.used_bytes() == 0


@pytest.mark.parametrize("begun_anew", [False, True])
def test_a_draft_deleted_by_hand_does_not_become_an_entry(begun_anew: bool) -> None:
    """The process that fills it is told, though another may have begun anew meanwhile."""
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        writer.append({"data.bin": b"x"}, rows=1)
        part = store.entries_folder() / "numbers-1.part"
        shutil.rmtree(part)
        if begun_anew:
            part.mkdir()
            (part / "data.bin").write_bytes(b"x")
        with pytest.raises(FileNotFoundError):
            writer.finish({})
    assert store.find_entry("numbers-1") is None
    make("numbers-1", 5)


def test_an_append_that_failed_ends_the_draft() -> None:
    """Going on after half a row would shift all that follows."""
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        writer.append({"data.bin": b"whole"}, rows=1)
        with pytest.raises(BufferError, match="contiguous"):
            writer.append({"data.bin": b"to", "more.bin": np.ones((2, 2)).T[::2]}, rows=1)
        with pytest.raises(RuntimeError, match="failed"):
            writer.append({"data.bin": b"next"}, rows=1)
        with pytest.raises(RuntimeError, match="failed"):
            writer.finish({})
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        assert (writer.rows, writer.size("data.bin")) == (1, 5)
        assert (writer.finish({}) / "data.bin").read_bytes() == b"whole"


def test_a_damaged_entry_is_made_again() -> None:
    """An entry with a file cut short is not found, and does not block a new one."""
    entry = make("numbers-1", 100)
    os.truncate(entry / "data.bin", 50)
    assert store.find_entry("numbers-1") is None
    make("numbers-1", 100)
    assert store.find_entry("numbers-1") == entry


@pytest.mark.parametrize("place", ["data.bin", "about.json"])
def test_a_flipped_bit_has_an_entry_removed_and_said(place: str) -> None:
    """It is found at the first opening in a process; a draft that goes on from damaged rows begins anew."""
    entry = make("numbers-1", 10_000)
    lines: list[str] = []
    flip(entry / place, random.Random(0))
    store._verified.clear()
    with each_log_line(lines.append):
        assert store.find_verified("numbers-1") is None
    assert len(lines) == 1
    assert lines[0].startswith(f"cache: {entry} is damaged")
    assert not entry.exists()
    make("numbers-1", 10_000)
    with each_log_line(lines.append):
        assert store.find_verified("numbers-1") == entry
    part = leave_draft("numbers-2", 10_000)
    flip(part / ("data.bin" if place == "data.bin" else "progress.json"), random.Random(1))
    with store.writing_entry("numbers-2") as writer:
        assert writer is not None
        assert writer.rows == 0


def test_an_entry_of_an_earlier_version_is_made_anew() -> None:
    """Without checksums it can not be verified."""
    entry = make("numbers-1", 10)
    documents.write_json(entry / entry_writer.ABOUT, {"files": {"data.bin": 10}})
    lines: list[str] = []
    with each_log_line(lines.append):
        assert store.find_verified("numbers-1") is None
    assert "an earlier version's" in lines[0]
    make("numbers-1", 10)


def test_a_whole_entry_is_never_replaced() -> None:
    """Where two processes fill after all (somebody deleted the lock), the first one's entry stays."""
    with store.writing_entry("numbers-1") as writer:
        assert writer is not None
        writer.append({"data.bin": b"second"}, rows=1)
        first = entry_writer.EntryWriter(store.entries_folder() / "other.part", store.entries_folder() / "numbers-1")
        first.append({"data.bin": b"first"}, rows=1)
        first.finish({})
        entry = writer.finish({})
    assert (entry / "data.bin").read_bytes() == b"first"
    assert not (store.entries_folder() / "numbers-1.part").exists()


@pytest.mark.usefixtures("budget")
def test_least_recently_used_entries_go_first() -> None:
    """As many as needed, the longest unused first; finding one counts as using it."""
    old, older, oldest = (make(f"numbers-{age}", 3000, age) for age in (4000, 5000, 6000))
    assert store.find_entry(oldest.name) == oldest
    assert store.make_room(3500)
    assert [path.exists() for path in (old, older, oldest)] == [True, False, True]
    assert store.make_room(500)
    assert old.exists()


@pytest.mark.usefixtures("budget")
def test_recently_used_entries_stay() -> None:
    """Another run is probably reading them. Where the rest would not do, nothing is evicted at all."""
    fresh, old = make("numbers-1", 3000, 600), make("numbers-2", 3000, 4000)
    assert not store.make_room(8000)
    assert fresh.exists()
    assert old.exists()
    assert store.make_room(6500)
    assert fresh.exists()
    assert not old.exists()


@pytest.mark.usefixtures("budget")
def test_drafts_that_are_being_filled_stay_and_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft is evicted like an entry, unless a process holds its lock or the room is for it."""
    monkeypatch.setattr(entry_writer, "BUFFER_BYTES", 16)
    abandoned = leave_draft("numbers-1", 3000)
    own = leave_draft("numbers-2", 3000)
    with store.writing_entry("numbers-3") as writer:
        assert writer is not None
        writer.append({"data.bin": bytes(1000)}, rows=1)
        assert not store.make_room(9500, ["numbers-2"])
        assert abandoned.exists()
        assert store.make_room(8500, ["numbers-2"])  # of which 3000 are there already
        assert [path.exists() for path in (abandoned, own)] == [False, True]
        writer.finish({})
    assert store.find_entry("numbers-3") is not None


@pytest.mark.usefixtures("budget")
def test_what_a_killed_process_was_deleting_is_deleted() -> None:
    """It takes no room and does not stay."""
    leftover = make("numbers-1", 9000).rename(store.entries_folder() / "numbers-1.1234.gone")
    assert store.make_room(9000)
    assert not leftover.exists()


@pytest.mark.usefixtures("budget")
def test_a_reader_keeps_what_is_evicted() -> None:
    """A mapped file can be read after its entry is gone."""
    entry = make("numbers-1", 3000, 4000)
    data = np.memmap(entry / "data.bin", dtype=np.uint8, mode="r")
    assert store.make_room(10_000)
    assert not entry.exists()
    assert data.sum() == 0


def test_the_budget_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In GB; anything that is no size is refused by the variable's name. 0 has room for nothing."""
    monkeypatch.setenv("FINETUNE_CACHE_GB", "0.5")
    assert store.budget_bytes() == 500_000_000
    monkeypatch.setenv("FINETUNE_CACHE_GB", "0")
    assert not store.make_room(1)
    for bad in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("FINETUNE_CACHE_GB", bad)
        with pytest.raises(UserError, match="FINETUNE_CACHE_GB"):
            store.budget_bytes()


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (1e12, 500e9, 20e9),  # the default
        (1e12, 15e9, 10e9),  # 5 GB stay free
        (20e9, 5e9, 3e9),  # 10% stay free
        (20e9, 1e9, 0),
    ],
)
def test_the_budget_leaves_some_of_the_disk_free(
    monkeypatch: pytest.MonkeyPatch, total: float, free: float, expected: float
) -> None:
    """Whatever the budget, 10% of the disk, or 5 GB, stay free."""
    monkeypatch.delenv("FINETUNE_CACHE_GB", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=int(total), free=int(free)))
    assert store.budget_bytes() == expected
