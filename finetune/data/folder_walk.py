"""Walks a folder tree and lists its images. Each folder is read once; hidden and machine-made ones are skipped."""

import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from finetune.errors import DataError
from finetune.system.output import one_line

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
# Folders that storage servers, operating systems and programs make beside the user's own, in lower case.
MACHINE_MADE = frozenset(
    {
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "_gsdata_"),  # storage servers
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),  # Windows
        *("__macosx", "lost+found", "lost.dir"),  # macOS's archives, Linux, Android
        *("__pycache__", "ipynb_checkpoints"),
    }
)


class FolderWalk:
    """Lists folders and images, and remembers what it has passed over.

    Attributes:
        machine_made: folders whose names programs give.
        unreadable: folders that can't be listed.
        repeated: links to folders that were read under their own name, or that contain the data.
    """

    def __init__(self, above: Path) -> None:
        """Prepare to read folders inside `above`: links to it, and to folders that contain it, are not followed."""
        real = Path(os.path.realpath(above))
        self._read = {str(path) for path in (real, *real.parents)}
        self.machine_made: set[Path] = set()
        self.unreadable: list[Path] = []
        self.repeated: list[Path] = []

    def subfolders(self, folder: Path) -> list[Path]:
        """Return the folders in `folder`, sorted; links to folders that contain it are left out.

        Raises:
            DataError: `folder` can't be read, or a name can't be written into a table (see `check_name`).
        """
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            raise DataError(f"data: {folder} can't be read ({error.strerror})") from error
        found = [Path(entry.path) for entry in entries if self._is_folder(entry)]
        above = [path for path in found if path.is_symlink() and os.path.realpath(path) in self._read]
        self.repeated += above
        return sorted(set(found) - set(above))

    def images(self, folders: Iterable[Path]) -> dict[Path, list[Path]]:
        """Return folder -> its images, by suffix, sorted. Folders count under their own name, links after them.

        Raises:
            DataError: a name can't be written into a table (see `check_name`).
        """
        found: dict[Path, list[Path]] = {folder: [] for folder in folders}
        links = deque((folder, folder) for folder in found if folder.is_symlink())
        for folder in found:
            if not folder.is_symlink():
                links.extend((folder, link) for link in self._read_tree(folder, found[folder]))
        while links:
            folder, link = links.popleft()
            if os.path.realpath(link) in self._read:
                self.repeated.append(link)
            else:
                links.extend((folder, further) for further in self._read_tree(link, found[folder]))
        return {folder: sorted(paths) for folder, paths in found.items()}

    def notes(self, root: Path) -> list[str]:
        """Return a sentence on each kind of folder that was passed over."""
        notes = []
        if self.machine_made:
            counts = Counter(path.name for path in self.machine_made)
            names = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
            notes.append(f"passed over, as programs make such folders: {names}")
        for links, words in (
            (self.unreadable, "warning: {} can't be read, and what is in them is missing: {}"),
            (self.repeated, "{} lead to folders that are read elsewhere or contain the data, and are not followed: {}"),
        ):
            if links:
                noun = "folders" if links is self.unreadable else "links"
                shown = ", ".join(str(path.relative_to(root)) for path in links[:5])
                count = f"{len(links)} {noun if len(links) > 1 else noun[:-1]}"
                notes.append(words.format(count, shown + (" and others" if len(links) > 5 else "")))
        return notes

    def _read_tree(self, top: Path, images: list[Path]) -> list[Path]:
        """Add the images below a folder; return the links to folders, which are not followed."""
        links, pending = [], [(str(top), os.path.realpath(top))]
        while pending:
            folder, real = pending.pop()
            if real in self._read:
                continue
            self._read.add(real)
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                self.unreadable.append(Path(folder))
                continue
            for entry in entries:
                if self._is_folder(entry):
                    if entry.is_symlink():
                        links.append(Path(entry.path))
                    else:
                        pending.append((entry.path, f"{real}/{entry.name}"))
                elif _is_image(entry):
                    images.append(Path(entry.path))
        return links

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether this is a folder to be read; a machine-made one is counted."""
        if entry.name.startswith(".") or not _holds(entry.is_dir):
            return False
        check_name(Path(entry.path))
        if entry.name.lower() in MACHINE_MADE:
            self.machine_made.add(Path(entry.path))
            return False
        return True


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the images below `folder`, by suffix, in a fixed order; see `FolderWalk`.

    Raises:
        DataError: a name can't be written into a table (see `check_name`).
    """
    yield from FolderWalk(Path(os.path.realpath(folder)).parent).images([folder])[folder]


def folder_names(folder: Path) -> set[str]:
    """Return the names, in NFC, of the visible folders in a folder; of one that can't be read, none."""
    try:
        entries = [entry for entry in os.scandir(folder) if _holds(entry.is_dir)]
    except OSError:
        return set()
    visible = [entry.name for entry in entries if not is_passed_over(entry.name)]
    return {unicodedata.normalize("NFC", name) for name in visible}


def is_passed_over(name: str) -> bool:
    """Whether a folder of this name is hidden or machine-made."""
    return name.startswith(".") or name.lower() in MACHINE_MADE


def has_images(folder: Path) -> bool:
    """Whether a folder has images directly in it."""
    try:
        with os.scandir(folder) as entries:
            return any(not _holds(entry.is_dir) and _is_image(entry) for entry in entries)
    except OSError:
        return False


class FoundFiles:
    """Finds files by paths whose letters may be composed in another way (Unicode's NFC and NFD) than their names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, dict[str, str]] = {}  # folder -> name in NFC -> name as it is

    def find(self, path: Path) -> Path:
        """Return the path as it is in the root, or `path` where there is none."""
        if (self._root / path).exists():
            return path
        found = Path()
        for part in path.parts:
            folder = self._root / found
            if folder not in self._names:
                listed = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
                self._names[folder] = {unicodedata.normalize("NFC", name): name for name in listed}
            name = self._names[folder].get(unicodedata.normalize("NFC", part))
            if name is None:
                return path
            found /= name
        return found


def check_name(path: Path) -> None:
    """Raise DataError if a name has control characters, or is no UTF-8: tables can't hold it."""
    if one_line(path.name) != path.name:
        raise DataError(
            f"data: {one_line(str(path))} has control characters, or bytes that are no UTF-8, in its name: rename it"
        )


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether this is a visible file with the suffix of an image, and no dead link."""
    if entry.name.startswith("."):
        return False
    check_name(Path(entry.path))
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _holds(entry.is_file)


def _holds(asked: Callable[[], bool]) -> bool:
    """Return the answer of an entry's method; False where it can't be told, as for links in a circle."""
    try:
        return asked()
    except OSError:
        return False
