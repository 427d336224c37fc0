"""Zip files: taken apart as a whole or not at all, and never outside of their folder."""

import lzma
import shutil
import stat
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from finetune.errors import DataError, DiskFullError
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError

SPARE_BYTES = 500e6  # stay free on the disk
CHUNK_BYTES = 2**20
UNPACKING = ".unpacking"  # ends the names of folders under way

MAX_MEMBERS = 2_000_000
MOST_RATIO, FREE_BYTES = 100, 2**20  # of pictures hardly anything can be packed; so much is let pass in any case

# What zipfile raises in the midst of a damaged file, by how it is packed; and bz2 an OSError without a number.
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, ValueError)

File = tuple[PurePosixPath, zipfile.ZipInfo]


def unpack(
    archive: Path,
    folder: Path,
    inside: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> None:
    """Unpack a folder of a zip file as `folder`, which must not exist yet and comes into being whole.

    What an earlier attempt has left half-way is removed. For one process at a time.

    Args:
        inside: the folder in the zip file; what lies beside it is left there.
        on_progress: called with bytes done and all bytes, as they lie unpacked.

    Raises:
        zipfile.BadZipFile: it is no zip file, is damaged, or would write outside of the folder.
        DataError: the folder can't be written.
        DiskFullError: the disk has no room.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{UNPACKING}")
    total = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*{UNPACKING}"):
            shutil.rmtree(left, ignore_errors=True)
        with zipfile.ZipFile(archive) as content:
            files = _checked(content, inside)
            total = sum(info.file_size for _, info in files)
            _check_room(archive, folder.parent, total)
            temporary.mkdir()
            done = 0
            for name, info in files:
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(info) as source, target.open("xb") as file:
                    while chunk := source.read(CHUNK_BYTES):
                        file.write(chunk)
                        done += len(chunk)
                        on_progress(done, total)
        temporary.rename(folder)
    except BROKEN as error:
        raise zipfile.BadZipFile(f"{archive} is no whole zip file ({error})") from error
    except OSError as error:
        if error.errno is None:  # bz2's
            raise zipfile.BadZipFile(f"{archive} is no whole zip file ({error})") from error
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(str(WriteError(error.errno, error.strerror or "", folder, total))) from error
        raise DataError(f"{archive} can't be unpacked into {folder} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checked(content: zipfile.ZipFile, inside: str) -> list[File]:
    """Return the files to unpack, and their names in the folder.

    Raises:
        zipfile.BadZipFile: one of them has no business in a data set.
    """
    files: list[File] = []
    if len(content.infolist()) > MAX_MEMBERS:
        raise zipfile.BadZipFile(f"it has more than {MAX_MEMBERS:,} members; nothing of it was unpacked")
    for info in content.infolist():
        name = PurePosixPath(info.filename)
        if fault := _fault(info, name):
            raise zipfile.BadZipFile(f"{info.filename!r} {fault}; nothing of it was unpacked")
        if name.parts[:1] == (inside,) and not info.is_dir():
            files.append((name.relative_to(inside), info))
    if not files:
        raise zipfile.BadZipFile(f"there is no folder {inside}/ with files in it")
    unpacked, packed = sum(info.file_size for _, info in files), sum(info.compress_size for _, info in files)
    if unpacked > MOST_RATIO * packed + FREE_BYTES:
        raise zipfile.BadZipFile(f"it would unpack to more than {MOST_RATIO} times its size, which no pictures do")
    return files


def _fault(info: zipfile.ZipInfo, name: PurePosixPath) -> str | None:
    """Return why a file must not be unpacked, or None."""
    if name.is_absolute() or ".." in name.parts or "\\" in info.filename or ":" in info.filename:
        return "leads out of its folder"
    kind = stat.S_IFMT(info.external_attr >> 16)  # of Unix; 0 where another system made the file
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no plain file"
    if info.flag_bits & 1:
        return "is encrypted"
    return None


def _check_room(archive: Path, folder: Path, total: int) -> None:
    """Raise DiskFullError if what is unpacked does not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if total > free - SPARE_BYTES:
        raise DiskFullError(
            f"{archive} takes {total / 1e9:.2f} GB unpacked (with {SPARE_BYTES / 1e9:.1f} to spare), and {folder} has "
            f"{free / 1e9:.2f} GB free. Make room there"
        )
