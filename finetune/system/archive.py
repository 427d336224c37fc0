"""Unpacks one folder of a ZIP archive: completely or not at all, and never outside of the target."""

import lzma
import shutil
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from finetune.errors import DataError
from finetune.system.atomic import check_free_space, raising_user_error, raising_write_error

SPARE_BYTES = 500e6  # stay free on the disk
CHUNK_BYTES = 2**20
UNPACKING = ".unpacking"  # suffix of temporary folders

MAX_MEMBERS = 2_000_000
MAX_RATIO, UNCHECKED_BYTES = 100, 2**20  # images hardly compress; archives up to this size may have any ratio

# What zipfile raises for a damaged archive, depending on the compression; bz2 raises an OSError without a number.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
)

Member = tuple[PurePosixPath, zipfile.ZipInfo]  # the path below the target folder, and the archive's entry


def unpack(
    archive: Path,
    folder: Path,
    inside: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> None:
    """Unpack one folder of a ZIP archive as `folder`, which must not exist yet.

    Deletes what an earlier attempt left. Only one process at a time may call this.

    Args:
        inside: the folder in the archive; the rest of the archive is ignored.
        on_progress: called with bytes done and in total, both of unpacked files.

    Raises:
        zipfile.BadZipFile: the file is no ZIP archive, is damaged, or would write outside of the folder.
        DataError: the folder can't be written.
        DiskFullError: the disk is full.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{UNPACKING}")
    try:
        with raising_user_error(folder, DataError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            for leftover in folder.parent.glob(f".{folder.name}.*{UNPACKING}"):
                shutil.rmtree(leftover, ignore_errors=True)
            _unpack_into(archive, temporary, inside, on_progress)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_into(archive: Path, folder: Path, inside: str, on_progress: Callable[[int, int], None]) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            members = _checked_members(content, inside)
            total = sum(info.file_size for _, info in members)
            check_free_space(folder.parent, total, SPARE_BYTES, f"unpacking {archive}")
            folder.mkdir()
            done = 0
            for name, info in members:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with raising_write_error(folder, total), content.open(info) as source, target.open("xb") as file:
                    while chunk := source.read(CHUNK_BYTES):
                        file.write(chunk)
                        done += len(chunk)
                        on_progress(done, total)
    except ZIP_ERRORS as error:
        raise zipfile.BadZipFile(f"{archive} is no complete ZIP archive ({error})") from error
    except OSError as error:
        if error.errno is None:  # bz2's
            raise zipfile.BadZipFile(f"{archive} is no complete ZIP archive ({error})") from error
        raise


def _checked_members(content: zipfile.ZipFile, inside: str) -> list[Member]:
    """Return the files to unpack.

    Raises:
        zipfile.BadZipFile: one of them does not belong in a data set.
    """
    members: list[Member] = []
    if len(content.infolist()) > MAX_MEMBERS:
        raise zipfile.BadZipFile(f"it has more than {MAX_MEMBERS:,} members; nothing was unpacked")
    for info in content.infolist():
        name = PurePosixPath(info.filename)
        if fault := _fault(info, name):
            raise zipfile.BadZipFile(f"{info.filename!r} {fault}; nothing was unpacked")
        if name.parts[:1] == (inside,) and not info.is_dir():
            members.append((name.relative_to(inside), info))
    if not members:
        raise zipfile.BadZipFile(f"there is no folder {inside}/ with files in it")
    unpacked, packed = sum(info.file_size for _, info in members), sum(info.compress_size for _, info in members)
    if unpacked > MAX_RATIO * packed + UNCHECKED_BYTES:
        raise zipfile.BadZipFile(f"it would unpack to more than {MAX_RATIO} times its size, which no images do")
    return members


def _fault(info: zipfile.ZipInfo, name: PurePosixPath) -> str | None:
    """Return why a member must not be unpacked, or None."""
    if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
        return "leads out of its folder"
    kind = stat.S_IFMT(info.external_attr >> 16)  # of Unix; 0 where another system made the archive
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no plain file"
    if info.flag_bits & 1:
        return "is encrypted"
    return None
