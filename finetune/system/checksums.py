"""Checksums that travel inside a file, so that neither can be replaced without the other; and setting damage aside.

They are CRC-32: every flip of up to three bits in a checkpoint and every torn block is found, others but for one in 4
billion, at 3 GB/s. They are against broken disks and cut copies, not against anyone who wants to deceive.
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

SEAL = "crc32"  # the key of sealed JSON, and the word in the comment of a sealed ZIP archive
_COMMENT = re.compile(rb"crc32 ([0-9a-f]{8})")
_COMMENT_BYTES, _DIGITS = 14, 8
_END_BYTES = 22  # of a ZIP archive's last record without its comment, whose length is in the last two of them
PIECE_BYTES = 2**22


def crc32_of(path: Path, size: int | None = None) -> int:
    """Return the CRC-32 of a file's first `size` bytes, all of them by default; of a shorter file, of what there is."""
    left, crc = path.stat().st_size if size is None else size, 0
    piece = memoryview(bytearray(PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while left > 0 and (count := file.readinto(piece[: min(left, PIECE_BYTES)])):
            crc = zlib.crc32(piece[:count], crc)
            left -= count
    return crc


def seal_archive(path: Path) -> None:
    """Write into a ZIP archive without a comment, such as torch.save() makes, a comment with the CRC-32 of the file.

    What reads ZIP archives reads it as before, and so does torch.load().
    """
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(_COMMENT_BYTES.to_bytes(2, "little") + f"{SEAL} ".encode())
    crc = crc32_of(path)
    with path.open("ab") as file:
        file.write(f"{crc:08x}".encode())


def zip_fault(path: Path) -> str | None:
    """Return what is wrong with a ZIP archive, sealed or not, or None; torch.load() itself hardly notices anything.

    One that is not sealed, such as an earlier version or another program wrote, is checked by the CRC-32 that it has
    of each of its parts, if it has them.

    Raises:
        OSError: it can't be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - _END_BYTES - _COMMENT_BYTES, 0))
        end = file.read()
    found = _COMMENT.fullmatch(end[-_COMMENT_BYTES:])
    if found:
        return None if crc32_of(path, size - _DIGITS) == int(found[1], 16) else "its checksum does not match"
    if end[-_END_BYTES:][:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        return "it is cut short, or no such file"
    return _part_fault(path)


def _part_fault(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(part.CRC for part in archive.infolist()):  # written without, which torch can be told to do
                return None
            bad = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for a damaged file
        return f"it is damaged: {error}"
    return None if bad is None else f"the checksum of its part {bad} does not match"


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON with its checksum under SEAL, atomically."""
    write_json(path, {**value, SEAL: _crc32_of_values(value)})


def read_checked_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_sealed` wrote, or None where there is no such file.

    Raises:
        ValueError: it is damaged, or not sealed.
    """
    value = read_json(path)
    if value is not None and value.pop(SEAL, None) != _crc32_of_values(value):
        raise ValueError(f"{path}: its checksum does not match")
    return value


def _crc32_of_values(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def quarantine(path: Path) -> Path:
    """Give a damaged file a name under which nobody looks for it, such as last.pt.damaged-1; return that name.

    Raises:
        RunTakenError: another process has taken the run over.
    """
    check_write_guard(path)
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    return aside
