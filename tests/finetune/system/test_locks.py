"""Locks: by the system where it has them, by a file elsewhere; and what is cached is right with none at all."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from filelock import Timeout

from finetune.cache import entry_writer, store
from finetune.system import locks


def refusing(number: int) -> object:
    """Stand in for fcntl.flock on a file system that has none."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return flock


FLOCKS = {
    "no locks": refusing(errno.ENOLCK),
    "not supported": refusing(errno.EOPNOTSUPP),
    "not implemented": refusing(errno.ENOSYS),
    "do nothing": lambda *_: None,
}


@pytest.fixture(params=FLOCKS)
def lockless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose file system has no locks, or pretends to."""
    monkeypatch.setattr(fcntl, "flock", FLOCKS[request.param])
    locks._probe_flock.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    locks._probe_flock.cache_clear()


def test_a_file_system_with_locks_is_known_as_one(tmp_path: Path) -> None:
    """And the look at it leaves nothing behind."""
    assert locks.flock_works(tmp_path)
    with locks.lock(tmp_path / "a.lock").acquire(timeout=0), pytest.raises(Timeout):
        locks.lock(tmp_path / "a.lock").acquire(timeout=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


def test_without_them_a_file_keeps_others_out(lockless: Path) -> None:
    """Also where the system says yes to everybody."""
    assert not locks.flock_works(lockless)
    with locks.lock(lockless / "a.lock").acquire(timeout=0), pytest.raises(Timeout):
        locks.lock(lockless / "a.lock").acquire(timeout=0)
    assert not list(lockless.iterdir())


def test_an_entry_that_two_make_at_once_without_locks_is_whole(lockless: Path) -> None:
    """Each in a draft of its own; the first one is kept, and the second leaves nothing."""
    store.entries_folder().mkdir(parents=True)
    with store.writing_entry("numbers-1") as first, store.writing_entry("numbers-1") as second:
        assert first is not None
        assert second is not None
        for made in (first, second, first):
            made.append({"a.bin": b"x"}, rows=1)
        second.append({"a.bin": b"x"}, rows=1)
        assert first.finish({}) == second.finish({}) == store.entries_folder() / "numbers-1"
    assert (store.entries_folder() / "numbers-1" / "a.bin").read_bytes() == b"xx"
    assert [path.name for path in store.entries_folder().iterdir()] == ["numbers-1"]
    assert store.make_room(100)
    assert lockless in store.entries_folder().parents


def test_of_two_that_fill_one_draft_the_first_finishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks that do not reach from one machine to the next let two in; the entry has no holes all the same."""
    part, entry = tmp_path / "numbers-1.part", tmp_path / "numbers-1"
    first = entry_writer.EntryWriter(part, entry)
    with monkeypatch.context() as patch:
        patch.setattr(entry_writer, "NOTE_SECONDS", 0.0)
        first.append({"a.bin": b"12"}, rows=2)
    first.append({"a.bin": b"345"}, rows=3)
    second = entry_writer.EntryWriter(part, entry)
    assert second.rows == 2
    with pytest.raises(OSError, match="another process"):
        first.finish({})
    first.close()
    for content in (b"3", b"4", b"5", b"6"):
        second.append({"a.bin": content}, rows=1)
    second.finish({})
    assert (entry / "a.bin").read_bytes() == b"123456"
    assert sorted(path.name for path in entry.iterdir()) == ["a.bin", "about.json"]
