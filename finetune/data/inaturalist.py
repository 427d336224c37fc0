"""iNaturalist-12K: 10 kinds of living beings, about 10,000 photos that train and 2,000 that test.

A subset of iNaturalist's photos that W&B publishes as a zip file of 3.6 GB. A copy that is here already is used,
wherever one of these has it; else it is fetched into the first of them:

    $DATA_ROOT                   where the user keeps data sets; it may be the data set's own folder
    <the user's cache>/data
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import Timeout

from finetune.errors import DataError, DiskFullError, NotDownloadedError
from finetune.system.archive import unpack
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError
from finetune.system.documents import write_json
from finetune.system.download import POLL_SECONDS, RequiredFile, download, missing_files_message, sha256
from finetune.system.environment import cache_folder
from finetune.system.locks import lock
from finetune.system.progress_bar import print_to_stderr, progress_bar
from finetune.system.redaction import redact

NAME = "inaturalist12k"
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
LEAST_SHARE = 0.9  # of these; a copy with less is a torso

Say = Callable[[str], None]


def find() -> Path | None:
    """Return the folder with the pictures if it is on this machine, unpacked."""
    candidates = [place / FOLDER for place in _places()]
    if given := os.environ.get(ROOT_VARIABLE):
        candidates.insert(0, Path(given).expanduser())
    return next((folder for folder in candidates if _is_it(folder)), None)


def here() -> Path:
    """Return the folder with the pictures.

    Raises:
        MissingError: it is not on this machine.
    """
    folder = find()
    if folder is None:
        raise NotDownloadedError(missing_files_message([wanted()]))
    return folder


def have(say: Say = print_to_stderr) -> Path:
    """Return the folder with the pictures, fetched and unpacked first if need be.

    Of several processes one does that, and the others wait for it.

    Args:
        say: called with lines about what takes its time.

    Raises:
        DataError: the copy that is here is damaged, or the folder can't be written.
        DownloadError, NoRoomError: it can't be fetched.
    """
    folder = find()
    if folder is not None:
        return folder
    place = _places()[0]
    try:
        place.mkdir(parents=True, exist_ok=True)
        alone = lock(place / f"{FOLDER}.lock")
        while True:
            try:
                with alone.acquire(timeout=POLL_SECONDS):
                    return find() or _bring(place, say)
            except Timeout:
                continue
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFullError(str(WriteError(error.errno, error.strerror or "", place, None))) from error
        raise DataError(f"data: {place} can't be written ({error.strerror or error}); see {ROOT_VARIABLE}") from error


def wanted() -> RequiredFile:
    """Return what is to be fetched where `find` finds nothing."""
    place = _places()[0]
    hint = f"as it is, or unpacked; {ROOT_VARIABLE} names another folder"
    return RequiredFile(f"data {NAME}", url(), place / ARCHIVE, BYTES, hint)


def url() -> str:
    """Return where the zip file is fetched from."""
    return os.environ.get(URL_VARIABLE) or URL


def complaints(folder: Path) -> list[str]:
    """Return how a copy differs from what is published, a sentence each.

    Raises:
        DataError: so many pictures are missing that it is a torso.
    """
    told = []
    for split, published in COUNTS.items():
        found = sum(1 for name in CLASSES for _ in (folder / split / name).glob("[!.]*"))
        if found < LEAST_SHARE * published:
            raise DataError(
                f"data: {folder / split} has {found:,} of {published:,} pictures: it was not unpacked to the end, it "
                "seems. Delete the folder, and the same command unpacks or fetches it anew"
            )
        if found != published:
            told.append(f"{folder / split} has {found:,} pictures, {published:,} were published")
    return told


def _places() -> list[Path]:
    given = os.environ.get(ROOT_VARIABLE)
    return [*([Path(given).expanduser()] if given else []), cache_folder() / "data"]


def _is_it(folder: Path) -> bool:
    """Whether this is the unpacked data set. Never one half-way: it gets its name when it is whole."""
    return all((folder / split / CLASSES[0]).is_dir() for split in COUNTS)


def _bring(place: Path, say: Say) -> Path:
    """Unpack the zip file, fetched first if need be, and return the folder."""
    folder = place / FOLDER
    if folder.exists():
        raise DataError(f"data: {folder} has no train/{CLASSES[0]}/ and val/{CLASSES[0]}/. Take it out of the way")
    archive = next((other / ARCHIVE for other in _places() if (other / ARCHIVE).is_file()), None)
    fetched = archive is None
    if archive is None:
        archive = place / ARCHIVE
        say(f"fetching {url()} to {archive}: {BYTES / 1e9:.1f} GB, once")
        with progress_bar(ARCHIVE, in_bytes=True) as advance:
            download(url(), archive, on_progress=advance)
    say(f"unpacking {archive}")
    try:
        with progress_bar("unpacking", in_bytes=True) as advance:
            unpack(archive, folder, FOLDER, advance)
    except zipfile.BadZipFile as error:
        if not fetched:
            raise DataError(f"data: {error}. Take it out of the way, and the same command fetches another") from error
        archive.unlink()
        raise DataError(f"data: {error}. It was deleted; the same command fetches it again") from error
    mark = {"url": redact(url()), "bytes": archive.stat().st_size, "sha256": sha256(archive)}
    if fetched:
        archive.unlink()  # first, which makes room
    write_json(folder / MARK, mark)
    return folder
