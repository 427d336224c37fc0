"""The class of each image, and its split if it has one: by folders, or by a CSV file.

train/cat/1.jpg  val/cat/2.jpg  test/cat/3.jpg     folders of splits (by any usual name), or
cat/1.jpg  dog/2.jpg                               of classes only; or the file, whatever its name,
pictures.csv                                       path,label[,split][,group], paths starting from the folder it lies in
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.data.folder_walk import FolderWalk, FoundFiles, folder_names, has_images
from finetune.data.groups import groups_by_pattern
from finetune.errors import CorruptFileError, DataError
from finetune.system.output import one_line
from finetune.system.tables import read_cells, unescape_cell

# Usual names of splits; case, separators, digits and endings such as _set do not matter.
SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "evaluate", "holdout"),
}
_PART_OF_NAME = {name: part for part, names_of_part in SPLIT_NAMES.items() for name in names_of_part}
DELIMITERS = ",;\t"  # what spreadsheets write depends on the language
COLUMNS = {"path": ("path", "file", "filename"), "label": ("label", "class"), "split": ("split",), "group": ("group",)}
SHOWN = 5  # names in a message

PathsByClass = dict[str, list[Path]]  # class -> its images, in a fixed order


@dataclass(frozen=True)
class DatasetLayout:
    """The images of a data set, by split and class.

    Attributes:
        root: the folder that the images' paths start from.
        parts: train, val, test -> class -> images; one part called "" where nothing is split.
        display_names: part -> its name in the data, such as validation/.
        notes: what was skipped; one sentence each.
        groups: path inside `root` -> name of its group, of the images that have one (see groups.py).
        unreadable_folders: paths inside `root` of folders that can't be listed.
    """

    root: Path
    parts: dict[str, PathsByClass]
    display_names: dict[str, str]
    notes: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    unreadable_folders: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        """Return the paths of all images inside `root`, with forward slashes."""
        return [inside(path, self.root) for path in self.images()]

    def images(self) -> list[Path]:
        """Return all images."""
        return [path for part in self.parts.values() for paths in part.values() for path in paths]


def read_layout(place: Path, group_by: str | None = None) -> DatasetLayout:
    """Return the layout of a folder or CSV file.

    Args:
        group_by: finds the group of an image in its path (see groups.py); None: only a CSV file gives groups.

    Raises:
        DataError: the splits are ambiguous, the file has faults, or `group_by` finds nothing.
    """
    layout = _read_csv(place) if place.is_file() else _read_folder(place)
    if group_by is None:
        return layout
    if layout.groups:
        raise DataError(f"data: {place} has a column group, and group_by is given too: leave one of them out")
    return replace(layout, groups=groups_by_pattern(layout.paths(), group_by))


def _read_folder(place: Path) -> DatasetLayout:
    """Return the layout of a folder."""
    walk = FolderWalk(place)
    subfolders = walk.subfolders(place)
    chosen = _split_folders(subfolders, place)
    if len(chosen) < 2:
        chosen = {"": chosen.get("train", place)}
    classes = {part: subfolders if folder == place else walk.subfolders(folder) for part, folder in chosen.items()}
    images = walk.images(folder for folders in classes.values() for folder in folders)
    parts = {part: _by_label({folder: images[folder] for folder in folders}) for part, folders in classes.items()}
    display_names = {part: f"{folder.name}/" if part else str(folder) for part, folder in chosen.items()}
    unreadable = tuple(inside(folder, place) for folder in walk.unreadable)
    return DatasetLayout(place, parts, display_names, tuple(walk.notes(place)), unreadable_folders=unreadable)


def part_of_name(name: str) -> str | None:
    """Return train, val or test for a usual name of that split, such as Training or test_set; else None."""
    letters = "".join(filter(str.isalpha, name.casefold()))
    return _PART_OF_NAME.get(re.sub("(set|data|images|split)+$", "", letters) or letters)


def _split_folders(folders: Sequence[Path], place: Path) -> dict[str, Path]:
    """Return train, val, test -> folder; empty where the folders are classes.

    Raises:
        DataError: two folders are the same split, or may be splits under unusual names.
    """
    by_part: dict[str, list[Path]] = {}
    for folder in folders:
        if part := part_of_name(folder.name):
            by_part.setdefault(part, []).append(folder)
    if "train" not in by_part or any(_is_class(folder, folders) for folder in by_part["train"]):
        by_part = {}
    for part, same in by_part.items():
        if len(same) > 1:
            listed = " and ".join(f"{folder.name}/" for folder in same)
            raise DataError(f"{place}: has both {listed}, names of {part}; keep one of them, or rename one")
    _refuse_unknown_splits(folders, [same[0] for same in by_part.values()], place)
    return {part: by_part[part][0] for part in ("train", "val", "test") if part in by_part}


def _is_class(folder: Path, siblings: Sequence[Path]) -> bool:
    """Whether a folder called train is a class: it has images directly, as has a folder that can be no split."""
    others = [sibling for sibling in siblings if part_of_name(sibling.name) is None]
    return not folder_names(folder) and has_images(folder) and any(map(has_images, others))


def _refuse_unknown_splits(folders: Sequence[Path], splits: Sequence[Path], place: Path) -> None:
    """Raise DataError if folders beside `splits`, or two of them where there are none, hold folders of equal names."""
    inner = {folder: folder_names(folder) for folder in folders if not has_images(folder)}
    unknown = [
        folder
        for folder in folders
        if folder not in splits
        and any(
            len(shared := inner.get(folder, set()) & inner.get(other, set())) > 1
            and 2 * len(shared) > max(len(inner[folder]), len(inner[other]))
            for other in (splits or folders)
            if other != folder
        )
    ]
    if unknown:
        beside = f"as {', '.join(f'{folder.name}/' for folder in splits)} does" if splits else "as classes in splits do"
        raise DataError(
            f"data: {place}: {names([f'{folder.name}/' for folder in unknown])} hold folders of equal names "
            f"({names(sorted(inner[unknown[0]]))}), {beside}. If they are splits, "
            "rename them to train/, val/ and test/, or move what is none elsewhere. If they are classes, or all "
            "of them train, list the images in a CSV file path,label[,split]"
        )


def _by_label(images: Mapping[Path, Sequence[Path]]) -> PathsByClass:
    """Return class -> images; names that differ in their Unicode form alone are one class."""
    found: PathsByClass = {}
    for folder, paths in images.items():
        found.setdefault(unicodedata.normalize("NFC", folder.name), []).extend(paths)
    return {label: sorted(paths) for label, paths in found.items()}


def inside(path: Path, root: Path) -> str:
    """Return a path relative to `root`, with forward slashes."""
    return path.relative_to(root).as_posix()


def names(labels: list[str]) -> str:
    """Return the first few labels and the number of further ones, as text."""
    shown = ", ".join(labels[:SHOWN])
    return shown if len(labels) <= SHOWN else f"{shown} and {len(labels) - SHOWN} more"


def _read_csv(file: Path) -> DatasetLayout:
    """Return the layout of a CSV file; rows whose split is empty are left out."""
    rows = _rows(file)
    root, faults = file.parent, []
    parts: dict[str, PathsByClass] = {}
    seen: dict[str, str] = {}
    groups: dict[str, str] = {}
    unassigned = 0
    files = FoundFiles(root)
    for number, row in rows:
        path, label, split = Path(row["path"]), unicodedata.normalize("NFC", row["label"]), row.get("split")
        part = part_of_name(split) or split if split else split or ""
        if not path.is_absolute() and ".." not in path.parts:
            path = files.find(path)
        if split == "":
            unassigned += 1
        elif part not in ("", "train", "val", "test"):
            faults.append(f"line {number}: split {split!r} is none of train, val, test")
        elif not label or not row["path"]:
            faults.append(f"line {number}: {'label' if row['path'] else 'path'} is empty")
        elif one_line(f"{row['path']}{label}{row.get('group')}") != f"{row['path']}{label}{row.get('group')}":
            faults.append(f"line {number}: {one_line(row['path'])!r}, {one_line(label)!r}: has control characters")
        elif path.is_absolute() or ".." in path.parts:
            faults.append(f"line {number}: {path} must be a path inside of {root}")
        elif not (root / path).is_file():
            faults.append(f"line {number}: there is no {root / path}")
        elif path.as_posix() in seen:
            faults.append(f"line {number}: {path} was listed before, as {seen[path.as_posix()]}")
        else:
            seen[path.as_posix()] = f"{label}, {split}" if split else label
            if group := row.get("group"):
                groups[path.as_posix()] = group
            parts.setdefault(part, {}).setdefault(label, []).append(root / path)
    if faults:
        more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"data: {file} has faults\n  " + "\n  ".join(faults[:SHOWN]) + more)
    if set(parts) == {"train"}:
        parts = {"": parts["train"]}
    if parts and "" not in parts and "train" not in parts:
        raise DataError(f"data: {file} has no row whose split is train")
    ordered: dict[str, PathsByClass] = {
        part: {label: sorted(parts[part][label]) for label in sorted(parts[part])}
        for part in ("", "train", "val", "test")
        if part in parts
    }
    notes = (f"{unassigned} rows of {file.name} have no split and are left out",) if unassigned else ()
    display_names = {part: part or str(file) for part in ordered or ("",)}
    return DatasetLayout(root, ordered or {"": {}}, display_names, notes, groups)


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the cells, by the names of COLUMNS, of each row of a CSV file."""
    try:
        lines = list(read_cells(file, DELIMITERS))
    except (OSError, CorruptFileError) as error:
        raise DataError(
            f"data: {file} can't be read as a CSV file ({error}); it must be UTF-8, or UTF-16 with a byte order mark"
        ) from error
    header = [name.strip().lower() for name in lines[0][1]] if lines else []
    present = {column: [name for name in aliases if name in header] for column, aliases in COLUMNS.items()}
    absent = [column for column in ("path", "label") if not present[column]]
    if absent:
        raise DataError(
            f"data: {file} needs a first line with the columns path, label and perhaps split and group; "
            f"it has no {' and no '.join(absent)}, but {', '.join(header) or 'nothing'}"
        )
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"data: {file} has two columns {names(repeated)}")
    indices = {column: header.index(aliases[0]) for column, aliases in present.items() if aliases}
    return [
        (number, {column: unescape_cell("".join(cells[i : i + 1]).strip()) for column, i in indices.items()})
        for number, cells in lines[1:]
    ]
