"""Finds or fetches data sets by name or path, and fingerprints their images."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from finetune.data.duplicates import content_hash, size_and_ends
from finetune.data.folder_walk import FolderWalk
from finetune.data.layout import inside, read_layout
from finetune.errors import DataError, NotDownloadedError
from finetune.system import locks
from finetune.system.archive import unpack
from finetune.system.atomic import raising_user_error
from finetune.system.documents import write_json
from finetune.system.download import RequiredFile, fetch, missing_files_message, sha256
from finetune.system.environment import cache_folder
from finetune.system.progress_bar import progress_bar
from finetune.system.redaction import redact

logger = logging.getLogger(__name__)

# First bytes of compressed formats: JPEG, PNG, GIF, WebP, JPEG 2000. Any edit changes such a file up to its end.
COMPRESSED = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")

INATURALIST = "inaturalist12k"
URL = "https://storage.googleapis.com/wandb_datasets/nature_12K.zip"
URL_VARIABLE = "FINETUNE_INATURALIST_URL"  # of a mirror
ROOT_VARIABLE = "DATA_ROOT"
ARCHIVE, FOLDER = "nature_12K.zip", "inaturalist_12K"  # the folder is the zip file's only one
MARK = ".fetched.json"  # in the folder: url, bytes and sha256 of its zip file
CLASSES = (
    *("Amphibia", "Animalia", "Arachnida", "Aves", "Fungi"),
    *("Insecta", "Mammalia", "Mollusca", "Plantae", "Reptilia"),
)
BYTES = 3.6e9  # of the zip file, approximately
COUNTS = {"train": 9_999, "val": 2_000}  # as published
MIN_SHARE = 0.9  # of these; a copy with fewer images is incomplete


def locate(data: str) -> Path:
    """Return the path of `data`: `demo` (drawn first if needed), `inaturalist12k`, a folder or a CSV file.

    Raises:
        DataError: there is no such folder or file.
        NotDownloadedError: iNaturalist-12K is not on this machine; see `fetch_inaturalist`.
    """
    if data == "demo":
        from finetune.data.demo.images import demo_folder  # only this needs the drawing code

        return demo_folder()
    if data == INATURALIST:
        return locate_inaturalist()
    folder = Path(data).expanduser()
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() == ".csv"):
        fault = "is a file, no folder and no .csv" if folder.exists() else "does not exist"
        raise DataError(f"data: {data} {fault}. Give a folder of images, a CSV file, `demo` or `inaturalist12k`")
    return folder.resolve()


def fingerprint(place: Path) -> str:
    """Return 16 hex digits that change when an image of the data is added, removed, renamed, edited or relabelled.

    It covers the name, the size and the ends of each file, and all bytes of uncompressed formats, where an edit need
    not reach the ends. It ignores the folder's path and the files' times: a copy elsewhere has the same fingerprint.

    Args:
        place: a folder, or a CSV file, whose listed images count (see layout.py).
    """
    digest = hashlib.sha256()
    for name, path in _named_images(place):
        size, content = size_and_ends(path)
        digest.update(f"{name}\0{size}\0".encode())
        digest.update(content)
        if size > len(content) and not content.startswith(COMPRESSED):
            digest.update(content_hash(path))
    return digest.hexdigest()[:16]


def _named_images(place: Path) -> Iterable[tuple[str, Path]]:
    """Return (name, path) of the images; the name has the relative path, and what a CSV file says of it."""
    if not place.is_file():
        walk = FolderWalk(place.parent)
        found = [(inside(path, place), path) for path in walk.images([place])[place]]
        if not walk.repeated:
            return found
        linked = {inside(path, place): path for path in read_layout(place).images()}  # classes may be such links
        return [*found, *sorted(linked.items() - set(found))]
    layout = read_layout(place)
    return sorted(
        (f"{name}\0{label}\0{part}" + (f"\0{layout.groups[name]}" if name in layout.groups else ""), path)
        for part, by_class in layout.parts.items()
        for label, paths in by_class.items()
        for path in paths
        for name in [inside(path, layout.root)]
    )


def find_inaturalist() -> Path | None:
    """Return the folder with the unpacked images if it is on this machine."""
    candidates = [root / FOLDER for root in _roots()]
    if data_root := os.environ.get(ROOT_VARIABLE):
        candidates.insert(0, Path(data_root).expanduser())
    return next((folder for folder in candidates if _is_unpacked(folder)), None)


def locate_inaturalist() -> Path:
    """Return the folder with the images.

    Raises:
        NotDownloadedError: it is not on this machine.
    """
    folder = find_inaturalist()
    if folder is None:
        raise NotDownloadedError(missing_files_message([required_archive()]))
    return folder


def fetch_inaturalist() -> Path:
    """Return the folder with the images, after downloading and unpacking them if needed.

    One process at a time does that; the others wait for it.

    Raises:
        DataError: the copy on this machine is damaged, or the folder can't be written.
        DownloadError, DiskFullError: it can't be downloaded.
    """
    if (folder := find_inaturalist()) is not None:
        return folder
    root = _roots()[0]
    with raising_user_error(root, DataError, lambda: f"; see {ROOT_VARIABLE}"):
        root.mkdir(parents=True, exist_ok=True)
        with locks.hold(root / f"{FOLDER}.lock"):
            return find_inaturalist() or _fetch_and_unpack(root)


def required_archive() -> RequiredFile:
    """Return the file to download if `find_inaturalist` finds nothing."""
    url = os.environ.get(URL_VARIABLE) or URL
    hint = f"as it is, or unpacked; {ROOT_VARIABLE} names another folder"
    return RequiredFile(f"data {INATURALIST}", url, _roots()[0] / ARCHIVE, BYTES, hint)


def count_mismatches(folder: Path) -> list[str]:
    """Return the differences from the published numbers of images, one sentence each.

    Raises:
        DataError: so many images are missing that the copy is incomplete.
    """
    mismatches = []
    for split, published in COUNTS.items():
        count = sum(1 for name in CLASSES for _ in (folder / split / name).glob("[!.]*"))
        if count < MIN_SHARE * published:
            raise DataError(
                f"data: {folder / split} has {count:,} of {published:,} images: unpacking seems to have been "
                "interrupted. Delete the folder, and the same command unpacks or fetches it again"
            )
        if count != published:
            mismatches.append(f"{folder / split} has {count:,} images, {published:,} were published")
    return mismatches


def _roots() -> list[Path]:
    """Return the folders that may have the zip file or the data's folder, the first for new ones."""
    data_root = os.environ.get(ROOT_VARIABLE)
    return [*([Path(data_root).expanduser()] if data_root else []), cache_folder() / "data"]


def _is_unpacked(folder: Path) -> bool:
    """Whether this is the data set; it is complete, as it gets its name only at the end."""
    return all((folder / split / CLASSES[0]).is_dir() for split in COUNTS)


def _fetch_and_unpack(root: Path) -> Path:
    folder = root / FOLDER
    if folder.exists():
        raise DataError(f"data: {folder} has no train/{CLASSES[0]}/ and val/{CLASSES[0]}/. Move it away")
    required = required_archive()
    own = next((path for other in _roots() if (path := other / ARCHIVE).is_file()), None)
    archive = own or fetch(required)
    logger.info(f"unpacking {archive}")
    try:
        with progress_bar("unpacking", in_bytes=True) as advance:
            unpack(archive, folder, FOLDER, advance)
    except zipfile.BadZipFile as error:
        if own:
            raise DataError(f"data: {error}. Move it away, and the same command fetches another") from error
        archive.unlink()
        raise DataError(f"data: {error}. It was deleted; the same command fetches it again") from error
    mark = {"url": redact(required.url), "bytes": archive.stat().st_size, "sha256": sha256(archive)}
    if not own:
        archive.unlink()  # first, which makes room
    write_json(folder / MARK, mark)
    return folder
