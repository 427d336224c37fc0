"""The class of each image, and its split if it has one: by folders, or by a CSV file.

train/cat/1.jpg  val/cat/2.jpg  test/cat/3.jpg     folders of splits (val/ may be called validation/), or
cat/1.jpg  dog/2.jpg                               of classes only; or the file, whatever its name,
pictures.csv                                       path,label[,split][,group], paths starting from the folder it lies in
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.data.groups import groups_by_pattern
from finetune.errors import CorruptFileError, DataError
from finetune.system.output import one_line
from finetune.system.tables import read_cells, unescape_cell

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
VAL_NAMES = ("val", "validation", "valid")
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
    """

    root: Path
    parts: dict[str, PathsByClass]
    display_names: dict[str, str]
    notes: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)

    def paths(self) -> list[str]:
        """Return the paths of all images inside `root`, with forward slashes."""
        return [inside(path, self.root) for part in self.parts.values() for paths in part.values() for path in paths]


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
    folders = {folder.name: folder for folder in _subfolders(place)}
    vals = [name for name in VAL_NAMES if name in folders]
    if "train" not in folders:
        return DatasetLayout(place, {"": _by_class(place)}, {"": str(place)})
    if len(vals) > 1:
        raise DataError(f"{place}: has both {vals[0]}/ and {vals[1]}/; keep one of them")
    names = {"train": "train", **({"val": vals[0]} if vals else {}), **({"test": "test"} if "test" in folders else {})}
    if len(names) == 1:
        return DatasetLayout(place, {"": _by_class(folders["train"])}, {"": str(folders["train"])})
    parts = {part: _by_class(folders[name]) for part, name in names.items()}
    return DatasetLayout(place, parts, {part: f"{name}/" for part, name in names.items()})


def find_images(folder: Path) -> Iterator[Path]:
    """Yield the images below `folder`, by suffix, in a fixed order, without hidden files and dead links.

    A link to a folder that contains it is not followed.

    Raises:
        DataError: a name can't be written into a table (see `check_name`).
    """
    yield from _walk(folder, _with_parents(folder))


def _walk(folder: Path, entered: frozenset[Path]) -> Iterator[Path]:
    """Yield the images below `folder`; `entered` are the folders on the way to it, without links."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        check_name(entry)
        if entry.is_dir():
            if (target := entry.resolve()) not in entered:
                yield from _walk(entry, entered | {target})
        elif entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            yield entry


def _subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in `folder`, without links to a folder that contains it."""
    entered = _with_parents(folder)
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".") and entry.resolve() not in entered
    ]


def _with_parents(folder: Path) -> frozenset[Path]:
    return frozenset(path.resolve() for path in (folder, *folder.absolute().parents))


def check_name(path: Path) -> None:
    """Raise DataError if a name has control characters, or is no UTF-8: tables can't hold it."""
    if one_line(path.name) != path.name:
        raise DataError(
            f"data: {one_line(str(path))} has control characters, or bytes that are no UTF-8, in its name: rename it"
        )


def inside(path: Path, root: Path) -> str:
    """Return a path relative to `root`, with forward slashes."""
    return path.relative_to(root).as_posix()


def names(labels: list[str]) -> str:
    """Return the first few labels and the number of further ones, as text."""
    shown = ", ".join(labels[:SHOWN])
    return shown if len(labels) <= SHOWN else f"{shown} and {len(labels) - SHOWN} more"


def _by_class(folder: Path) -> PathsByClass:
    """Return the images in the visible folders of `folder`."""
    classes = _subfolders(folder)
    for entry in classes:
        check_name(entry)
    return {entry.name: list(find_images(entry)) for entry in classes}


def _read_csv(file: Path) -> DatasetLayout:
    """Return the layout of a CSV file; rows whose split is empty are left out."""
    rows = _rows(file)
    root, faults = file.parent, []
    parts: dict[str, PathsByClass] = {}
    seen: dict[str, str] = {}
    groups: dict[str, str] = {}
    unassigned = 0
    for number, row in rows:
        path, label, split = (Path(row["path"]), row["label"], row.get("split"))
        part = "" if split is None else "val" if split in VAL_NAMES else split
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
        raise DataError(f"data: {file} can't be read as a CSV file ({error}); it must be UTF-8") from error
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
