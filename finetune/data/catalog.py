"""Where the pictures lie: named data sets and folders, and the fingerprint of what is in them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from finetune.data import inaturalist
from finetune.errors import DataError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_SAMPLE_BYTES = 16 * 1024


def locate(data: str) -> Path:
    """Return the folder of `data`: `demo` (drawn first if need be), `inaturalist12k`, or a folder's path.

    Raises:
        DataError: there is no such folder.
        MissingError: iNaturalist-12K is not on this machine; see `bring`.
    """
    if data == "demo":
        from finetune.data.demo import demo_folder  # the drawing code is needed for this alone

        return demo_folder()
    if data == inaturalist.NAME:
        return inaturalist.here()
    folder = Path(data).expanduser()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"data: {data} {what}. Give a folder of pictures, `demo` or `inaturalist12k`")
    return folder.resolve()


def find_pictures(folder: Path) -> Iterator[Path]:
    """Yield the pictures below `folder`, by suffix, in a fixed order; hidden files and folders are passed over."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from find_pictures(entry)
        elif entry.suffix.lower() in PICTURE_SUFFIXES:
            yield entry


def fingerprint(root: Path) -> str:
    """Return 16 hex digits that change when a picture below `root` is added, removed, renamed or edited.

    Names, sizes and the first and last 16 KiB of every file go in, so that 10,000 photos take seconds, not minutes.
    The folder's own path and the files' times do not: a copy elsewhere has the same fingerprint.
    """
    digest = hashlib.sha256()
    for path in find_pictures(root):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            if size > 2 * _SAMPLE_BYTES:
                file.seek(-_SAMPLE_BYTES, 2)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
