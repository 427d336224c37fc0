"""Writes an entry of the store: appends rows to its files, so that a crash leaves no torn rows."""

import contextlib
import errno
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from finetune.system.checksums import crc32_of, read_checked_json, write_checked_json
from finetune.system.documents import read_json_or_empty

ABOUT, PROGRESS = "about.json", "progress.json"
DELETED = ".gone"  # suffix of what is being deleted
NOTE_SECONDS = 20.0  # of work that a power cut can cost
BUFFER_BYTES = 2**20


class EntryWriter:
    """Appends rows to the files of a draft, in one thread.

    Every NOTE_SECONDS it syncs the files, then notes their sizes in PROGRESS. The next writer of the draft truncates
    the files to the last note.

    Attributes:
        rows: in the draft, including those of an interrupted process; continue after them.
    """

    def __init__(self, part: Path, entry: Path) -> None:
        self._part, self._entry = part, entry
        self._files: dict[str, BinaryIO] = {}
        self._torn = False  # whether an append failed half-way
        self._noted_at = time.monotonic()
        part.mkdir(exist_ok=True)
        self._owner = uuid.uuid4().hex
        self.rows, self._sizes, self._sums = _read_note(part)
        # Another writer of this draft (locks may not reach from one machine to another) sees at its next note that it
        # has lost the draft, and finishes nothing.
        self._write_note()
        for path in part.iterdir():
            if path.name not in {PROGRESS, *self._sizes}:
                path.unlink()
        for name, size in self._sizes.items():
            self._open(name).truncate(size)
            self._files[name].seek(size)

    def size(self, name: str) -> int:
        """Return the bytes of a file so far."""
        return self._sizes.get(name, 0)

    def append(self, content: Mapping[str, bytes | bytearray | memoryview | NDArray[Any]], rows: int) -> None:
        """Append `rows` rows: file name -> bytes, or an array in C order.

        Raises:
            OSError: for example, the disk is full. This writer then appends nothing more.
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
        """Rename the draft to the entry, and return that folder. A complete entry that exists already stays.

        Args:
            about: plain values for ABOUT, which also gets `files`, name -> bytes, and `sums`, name -> CRC-32.

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
        delete_entry(self._part)

    def close(self) -> None:
        """Note the rows of an unfinished draft for the next writer; raises no OSError."""
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
            raise RuntimeError(f"{self._part}: an append has failed; continue with a new writer")

    def _note(self) -> None:
        if read_json_or_empty(self._part / PROGRESS).get("by", self._owner) != self._owner:
            raise FileExistsError(errno.EEXIST, "is being filled by another process", str(self._part))
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            path = self._part / name
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError(errno.ENOENT, "deleted while it was being filled", str(path))
        self._write_note()

    def _write_note(self) -> None:
        note = {"rows": self.rows, "sizes": self._sizes, "sums": self._sums, "by": self._owner}
        write_checked_json(self._part / PROGRESS, note)
        self._noted_at = time.monotonic()

    def _close_files(self) -> None:
        while self._files:
            with contextlib.suppress(OSError):  # bytes that did not fit on the disk
                self._files.popitem()[1].close()


def _read_note(part: Path) -> tuple[int, dict[str, int], dict[str, int]]:
    """Return the rows, file sizes and checksums that are safely on the disk; none if note or files are damaged."""
    try:
        note = read_checked_json(part / PROGRESS)
        if note is not None and _files_match(part, note["sizes"], note["sums"]):
            return note["rows"], note["sizes"], note["sums"]
    except (KeyError, ValueError, FileNotFoundError):
        pass
    return 0, {}, {}


def is_complete(entry: Path) -> bool:
    """Whether all files of an entry exist in full length; `checksums_match` reads them."""
    try:
        about = read_checked_json(entry / ABOUT)
        return about is not None and all((entry / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, KeyError, ValueError):
        return False


def checksums_match(entry: Path) -> bool:
    """Whether all files of an entry have their checksums; reads them completely."""
    try:
        about = read_checked_json(entry / ABOUT)
        return about is not None and _files_match(entry, about["files"], about["sums"])
    except (OSError, KeyError, ValueError):
        return False


def _files_match(folder: Path, sizes: Mapping[str, int], sums: Mapping[str, int]) -> bool:
    return all(crc32_of(folder / name, size) == sums[name] for name, size in sizes.items())


def rename_for_deletion(path: Path) -> Path:
    """Rename a folder, if it exists, so that no reader finds it; return the new path."""
    renamed = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{DELETED}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(renamed)
    return renamed


def delete_entry(path: Path) -> None:
    """Delete a folder as far as possible; a process that has mapped or opened a file keeps its content."""
    shutil.rmtree(rename_for_deletion(path), ignore_errors=True)


def _sync(path: Path) -> None:
    """Write a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
