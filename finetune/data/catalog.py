"""Where the pictures lie: named data sets and folders, and the fingerprint of what is in them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from finetune.data import inaturalist
from finetune.data.layout import find_pictures, inside, read_layout
from finetune.data.twins import sample
from finetune.errors import DataError


def locate(data: str) -> Path:
    """Return where `data` lies: `demo` (drawn first if need be), `inaturalist12k`, or the path of a folder or CSV file.

    Raises:
        DataError: there is no such folder or file.
        MissingError: iNaturalist-12K is not on this machine; see `bring`.
    """
    if data == "demo":
        from finetune.data.demo import demo_folder  # the drawing code is needed for this alone

        return demo_folder()
    if data == inaturalist.NAME:
        return inaturalist.here()
    folder = Path(data).expanduser()
    if not folder.is_dir() and not (folder.is_file() and folder.suffix.lower() == ".csv"):
        what = "is a file, no folder and no .csv" if folder.exists() else "does not exist"
        raise DataError(f"data: {data} {what}. Give a folder of pictures, a CSV file, `demo` or `inaturalist12k`")
    return folder.resolve()


def fingerprint(place: Path) -> str:
    """Return 16 hex digits that change when a picture of the data is added, removed, renamed, edited or labelled anew.

    Names, sizes and samples of every file go in (see twins.py). The folder's own path and the files' times do not: a
    copy elsewhere has the same fingerprint.

    Args:
        place: a folder, or a CSV file (see layout.py); then what it lists counts.
    """
    digest = hashlib.sha256()
    for name, path in _listed(place):
        size, content = sample(path)
        digest.update(f"{name}\0{size}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _listed(place: Path) -> Iterable[tuple[str, Path]]:
    """Return the pictures, each with what is said of it: its path, and what a CSV file has beside that."""
    if not place.is_file():
        return ((inside(path, place), path) for path in find_pictures(place))
    layout = read_layout(place)
    return sorted(
        (f"{inside(path, layout.root)}\0{label}\0{part}", path)
        for part, by_class in layout.parts.items()
        for label, paths in by_class.items()
        for path in paths
    )
