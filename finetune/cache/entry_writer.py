"""An entry of the store that is being made: rows are appended to its files, and no crash leaves torn ones."""

import contextlib
import errno
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from finetune.system.checksums import crc32_of, read_checked_json, write_checked_json
from finetune.system.documents import read_json_or_empty

ABOUT, PROGRESS = "about.json", "progress.json"
DELETED_PREFIX = ".gone"  # ends the names of what is being deleted
NOTE_SECONDS = 20.0  # of work that a power cut may cost
BUFFER_BYTES = 2**20


class EntryWriter:
    """Rows for the files of an entry, appended by one thread.

    Every NOTE_SECONDS all that was appended goes to the disk, and then a note of how much that is. Whatever comes after
    the last note is cut off when somebody goes on with the draft.

    Args:
        part: the folder it is made in; what an interrupted process has left there is gone on with.
        entry: what the folder is called once it is whole.

    Attributes:
        rows: appended so far, those of an interrupted process among them: go on after them.
    """

    def __init__(self, part: Path, entry: Path) -> None:
        self._part, self._entry = part, entry
        self._files: dict[str, BinaryIO] = {}
        self._torn = False  # whether an append has failed half-way
        self._noted_at = time.monotonic()
        part.mkdir(exist_ok=True)
        self._key = uuid.uuid4().hex
        self.rows, self._sizes, self._sums = _noted(part)
        # From now on, whoever else fills this draft (locks may not reach from one machine to another) learns at the
        # next note that it is no longer the only one, and finishes nothing.
        self._write_note()
        for path in part.iterdir():
            if path.name not in {PROGRESS, *self._sizes}:
                path.unlink()
        for name, size in self._sizes.items():
            self._open(name).truncate(size)
            self._files[name].seek(size)

    def size(self, name: str) -> int:
        """Return how many bytes a file has so far."""
        return self._sizes.get(name, 0)

    def append(self, content: Mapping[str, bytes | bytearray | memoryview | NDArray[Any]], rows: int) -> None:
        """Append to files, made if need be: file name -> bytes, or an array in C order.

        Args:
            rows: how many this is, for `rows`.

        Raises:
            OSError: the disk is full, say. Nothing more can be appended then, by this process.
        """
        self._check_not_torn()
        self._torn = True
        sizes, sums = dict(self._sizes), dict(self._sums)
        for name, data in content.items():
            raw = data.data if isinstance(data, np.ndarray) else data
            sizes[name] = sizes.get(name, 0) + self._open(name).write(raw)
            sums[name] = zlib.crc32(raw, sums.get(name, 0))
        self.rows, self._sizes, self._sums = self.rows + rows, sizes, sums
        self._torn = False
        if time.monotonic() - self._noted_at > NOTE_SECONDS:
            self._note()

    def finish(self, about: Mapping[str, Any]) -> Path:
        """Make this the entry, and return its folder. An entry that is there already, and whole, stays.

        Args:
            about: plain values that say what it holds, for ABOUT; `files`, name -> bytes, and `sums`, name -> CRC-32,
                are added.

        Raises:
            OSError: the disk is full, or somebody has deleted the draft.
        """
        self._check_not_torn()
        self._note()
        write_checked_json(self._part / ABOUT, {**about, "files": self._sizes, "sums": self._sums})
        _sync(self._part)
        if is_complete(self._entry):  # the lock was deleted by hand, and another process was faster
            self.discard()
            return self._entry
        self._part.rename(self._entry)
        _sync(self._entry.parent)
        (self._entry / PROGRESS).unlink(missing_ok=True)
        self._close_files()
        return self._entry

    def discard(self) -> None:
        """Delete the draft."""
        self._close_files()
        delete_entry([rename_for_deletion(self._part)])

    def close(self) -> None:
        """Note what there is, for whoever goes on, unless it is finished or discarded; raises no OSError."""
        with contextlib.suppress(OSError):
            if self._files:
                self._note()
        self._close_files()

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            path = self._part / name
            path.touch()
            self._files[name] = path.open("r+b", buffering=BUFFER_BYTES)
        return self._files[name]

    def _check_not_torn(self) -> None:
        if self._torn:
            raise RuntimeError(f"{self._part}: an append has failed; leave `drafting`, and begin again to go on")

    def _note(self) -> None:
        by = read_json_or_empty(self._part / PROGRESS).get("by", self._key)
        if by != self._key:
            raise FileExistsError(errno.EEXIST, "is being filled by another process", str(self._part))
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            path = self._part / name
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError(errno.ENOENT, "deleted while it was being filled", str(path))
        self._write_note()

    def _write_note(self) -> None:
        note = {"rows": self.rows, "sizes": self._sizes, "sums": self._sums, "by": self._key}
        write_checked_json(self._part / PROGRESS, note)
        self._noted_at = time.monotonic()

    def _close_files(self) -> None:
        while self._files:
            with contextlib.suppress(OSError):  # bytes that did not fit on the disk
                self._files.popitem()[1].close()


def _noted(part: Path) -> tuple[int, dict[str, int], dict[str, int]]:
    """Return the rows that are safely on the disk, file sizes and checksums; none where note or files are damaged."""
    try:
        noted = read_checked_json(part / PROGRESS)
        if noted is not None and _files_match(part, noted["sizes"], noted["sums"]):
            return noted["rows"], noted["sizes"], noted["sums"]
    except (KeyError, ValueError, FileNotFoundError):
        pass
    return 0, {}, {}


def is_complete(entry: Path) -> bool:
    """Whether all files of an entry are there, in full length; `is_right` looks into them."""
    try:
        about = read_checked_json(entry / ABOUT)
        return about is not None and all((entry / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, KeyError, ValueError):
        return False


def checksums_match(entry: Path) -> bool:
    """Whether the bytes of all files of an entry are those that were written; they are all read for this."""
    try:
        about = read_checked_json(entry / ABOUT)
        return about is not None and _files_match(entry, about["files"], about["sums"])
    except (OSError, KeyError, ValueError):
        return False


def _files_match(folder: Path, sizes: Mapping[str, int], sums: Mapping[str, int]) -> bool:
    return all(crc32_of(folder / name, size) == sums[name] for name, size in sizes.items())


def rename_for_deletion(path: Path) -> Path:
    """Give a folder, if it is there, a name under which nobody looks for it; return that name."""
    gone = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{DELETED_PREFIX}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
    return gone


def delete_entry(paths: Collection[Path]) -> None:
    """Delete folders as far as that can be done; who has mapped a file in them keeps its content."""
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have the names in a folder on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
