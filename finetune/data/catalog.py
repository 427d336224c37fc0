"""Where the images lie: named data sets and folders, and the fingerprint of what is in them."""

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from finetune.data import catalog
from finetune.data.duplicates import content_hash, size_and_ends
from finetune.data.layout import find_images, inside, read_layout
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


# How files of compressed formats begin: JPEG, PNG, GIF, WebP, JPEG 2000. An edit changes them to the end.
COMPRESSED = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")


def locate(data: str) -> Path:
    """Return where `data` lies: `demo` (drawn first if need be), `inaturalist12k`, or the path of a folder or CSV file.

    Raises:
        DataError: there is no such folder or file.
        NotDownloadedError: iNaturalist-12K is not on this machine; see `bring`.
    """
    if data == "demo":
        from finetune.data.demo.images import demo_folder  # the drawing code is needed for this alone

        return demo_folder()
    if data == catalog.INATURALIST:
        return catalog.locate_inaturalist()
    folder = Path(data).expanduser()
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() == ".csv"):
        what = "is a file, no folder and no .csv" if folder.exists() else "does not exist"
        raise DataError(f"data: {data} {what}. Give a folder of images, a CSV file, `demo` or `inaturalist12k`")
    return folder.resolve()


def fingerprint(place: Path) -> str:
    """Return 16 hex digits that change when an image of the data is added, removed, renamed, edited or labelled anew.

    It covers the name, the size and the ends of each file, and all bytes of a format without compression, where an
    edit need not reach the ends. It covers neither the folder's own path nor the files' times: a copy elsewhere has the
    same fingerprint.

    Args:
        place: a folder, or a CSV file (see layout.py); then what it lists counts.
    """
    digest = hashlib.sha256()
    for name, path in _listed(place):
        size, content = size_and_ends(path)
        digest.update(f"{name}\0{size}\0".encode())
        digest.update(content)
        if size > len(content) and not content.startswith(COMPRESSED):
            digest.update(content_hash(path))
    return digest.hexdigest()[:16]


def _listed(place: Path) -> Iterable[tuple[str, Path]]:
    """Return the images, each with what is said of it: its path, and what a CSV file has beside that."""
    if not place.is_file():
        return ((inside(path, place), path) for path in find_images(place))
    layout = read_layout(place)
    return sorted(
        (f"{inside(path, layout.root)}\0{label}\0{part}", path)
        for part, by_class in layout.parts.items()
        for label, paths in by_class.items()
        for path in paths
    )


INATURALIST = "inaturalist12k"


URL = "https://storage.googleapis.com/wandb_datasets/nature_12K.zip"


URL_VARIABLE = "FINETUNE_INATURALIST_URL"  # of a mirror


ROOT_VARIABLE = "DATA_ROOT"


ARCHIVE, FOLDER = "nature_12K.zip", "inaturalist_12K"  # the folder is the zip file's only one


MARK = ".fetched.json"  # in the folder: url, bytes and sha256 of the zip file it was unpacked from


CLASSES = (
    *("Amphibia", "Animalia", "Arachnida", "Aves", "Fungi"),
    *("Insecta", "Mammalia", "Mollusca", "Plantae", "Reptilia"),
)


BYTES = 3.6e9  # of the zip file, about


COUNTS = {"train": 9_999, "val": 2_000}  # as published


MIN_SHARE = 0.9  # of these; a copy with less is a torso


def find_inaturalist() -> Path | None:
    """Return the folder with the images if it is on this machine, unpacked."""
    candidates = [place / FOLDER for place in _places()]
    if given := os.environ.get(ROOT_VARIABLE):
        candidates.insert(0, Path(given).expanduser())
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
    """Return the folder with the images, fetched and unpacked first if need be.

    Of several processes one does that, and the others wait for it.

    Args:

    Raises:
        DataError: the copy that is here is damaged, or the folder can't be written.
        DownloadError, DiskFullError: it can't be fetched.
    """
    folder = find_inaturalist()
    if folder is not None:
        return folder
    place = _places()[0]
    with raising_user_error(place, DataError, lambda: f"; see {ROOT_VARIABLE}"):
        place.mkdir(parents=True, exist_ok=True)
        with locks.hold(place / f"{FOLDER}.lock"):
            return find_inaturalist() or _fetch_and_unpack(place)


def required_archive() -> RequiredFile:
    """Return what is to be fetched where `find` finds nothing."""
    place = _places()[0]
    hint = f"as it is, or unpacked; {ROOT_VARIABLE} names another folder"
    return RequiredFile(f"data {INATURALIST}", archive_url(), place / ARCHIVE, BYTES, hint)


def archive_url() -> str:
    """Return where the zip file is fetched from."""
    return os.environ.get(URL_VARIABLE) or URL


def count_mismatches(folder: Path) -> list[str]:
    """Return how a copy differs from what is published, a sentence each.

    Raises:
        DataError: so many images are missing that it is a torso.
    """
    told = []
    for split, published in COUNTS.items():
        found = sum(1 for name in CLASSES for _ in (folder / split / name).glob("[!.]*"))
        if found < MIN_SHARE * published:
            raise DataError(
                f"data: {folder / split} has {found:,} of {published:,} images: it was not unpacked to the end, it "
                "seems. Delete the folder, and the same command unpacks or fetches it anew"
            )
        if found != published:
            told.append(f"{folder / split} has {found:,} images, {published:,} were published")
    return told


def _places() -> list[Path]:
    given = os.environ.get(ROOT_VARIABLE)
    return [*([Path(given).expanduser()] if given else []), cache_folder() / "data"]


def _is_unpacked(folder: Path) -> bool:
    """Whether this is the unpacked data set. Never one half-way: it gets its name when it is whole."""
    return all((folder / split / CLASSES[0]).is_dir() for split in COUNTS)


def _fetch_and_unpack(place: Path) -> Path:
    """Unpack the zip file, fetched first if need be, and return the folder."""
    folder = place / FOLDER
    if folder.exists():
        raise DataError(f"data: {folder} has no train/{CLASSES[0]}/ and val/{CLASSES[0]}/. Take it out of the way")
    archive = next((other / ARCHIVE for other in _places() if (other / ARCHIVE).is_file()), None)
    fetched = archive is None
    if archive is None:
        archive = fetch(required_archive())
    logger.info(f"unpacking {archive}")
    try:
        with progress_bar("unpacking", in_bytes=True) as advance:
            unpack(archive, folder, FOLDER, advance)
    except zipfile.BadZipFile as error:
        if not fetched:
            raise DataError(f"data: {error}. Take it out of the way, and the same command fetches another") from error
        archive.unlink()
        raise DataError(f"data: {error}. It was deleted; the same command fetches it again") from error
    mark = {"url": redact(archive_url()), "bytes": archive.stat().st_size, "sha256": sha256(archive)}
    if fetched:
        archive.unlink()  # first, which makes room
    write_json(folder / MARK, mark)
    return folder
