"""Checksums inside files, so that file and checksum can't be separated; and renaming of damaged files.

They are CRC-32, at 3 GB/s, and detect every flip of up to three bits, every torn block, and other damage but for one in
4 billion. They protect against broken disks and truncated copies, not against deception.

Three schemes remain, as each covers files that the others can't: SHA256SUMS (rundir/integrity.py) the files of a
finished run, for `sha256sum -c`; a ZIP comment the checkpoints of unfinished runs; a JSON key the small files that
are replaced often. The CRC-32 that torch.save stores per part can't replace the comment: it misses flips in headers.
"""

import contextlib
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.system.atomic import check_write_guard
from finetune.system.documents import read_json, write_json

CHECKSUM_KEY = "crc32"  # in JSON files and in the comments of ZIP archives
_COMMENT = re.compile(rb"crc32 ([0-9a-f]{8})")
_COMMENT_BYTES, _DIGITS = 14, 8
_END_BYTES = 22  # of a ZIP archive's end record without the comment, whose length is in the last two
CHUNK_BYTES = 2**22


def crc32_of(path: Path, size: int | None = None) -> int:
    """Return the CRC-32 of a file's first `size` bytes (default: all)."""
    left, crc = path.stat().st_size if size is None else size, 0
    chunk = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        while left > 0 and (count := file.readinto(chunk[: min(left, CHUNK_BYTES)])):
            crc = zlib.crc32(chunk[:count], crc)
            left -= count
    return crc


def add_zip_checksum(path: Path) -> None:
    """Add a comment with the CRC-32 of the file to a ZIP archive without a comment, such as torch.save() writes.

    torch.load() and other readers of ZIP archives ignore it.
    """
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(_COMMENT_BYTES.to_bytes(2, "little") + f"{CHECKSUM_KEY} ".encode())
    crc = crc32_of(path)
    with path.open("ab") as file:
        file.write(f"{crc:08x}".encode())


def zip_fault(path: Path) -> str | None:
    """Return how a ZIP archive is damaged, or None; torch.load() itself does not compare checksums.

    If an archive has no checksum in its comment (an earlier version or another program wrote it), the CRC-32 of each
    part counts, if it has them.

    Raises:
        OSError: the file can't be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _END_BYTES - _COMMENT_BYTES, 0))
        end = file.read()
    match = _COMMENT.fullmatch(end[-_COMMENT_BYTES:])
    if match:
        return None if crc32_of(path, size - _DIGITS) == int(match[1], 16) else "its checksum does not match"
    if end[-_END_BYTES:][:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        return "it is truncated, or no ZIP archive"
    return _part_fault(path)


def _part_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(part.CRC for part in archive.infolist()):  # torch can be configured to write none
                return None
            bad = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for a damaged file
        return f"it is damaged: {error}"
    return None if bad is None else f"the checksum of its part {bad} does not match"


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` and its checksum as JSON, atomically."""
    write_json(path, {**value, CHECKSUM_KEY: _crc32_of_values(value)})


def read_checked_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_checked_json` wrote, or None if there is no such file.

    Raises:
        ValueError: the file is damaged, or has no checksum.
    """
    value = read_json(path)
    if value is not None and value.pop(CHECKSUM_KEY, None) != _crc32_of_values(value):
        raise ValueError(f"{path}: its checksum does not match")
    return value


def _crc32_of_values(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def quarantine(path: Path) -> Path:
    """Rename a damaged file, for example to last.pt.damaged-1, and return the new path.

    Raises:
        RunTakenError: another process has taken the run over.
    """
    check_write_guard(path)
    number = 1
    while (renamed := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with contextlib.suppress(FileNotFoundError):
        path.rename(renamed)
    return renamed
