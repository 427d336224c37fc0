"""Which pictures train, which choose (val), which are tested: by the folder's layout, for the rest by hash."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.catalog import find_pictures
from finetune.errors import DataError

VAL_NAMES = ("val", "validation", "valid")
VAL_SHARE = 0.20  # of train, where the folder has a test split and no val
FOLDER_SHARES = {"val": 0.15, "test": 0.15}  # where it has classes only; the rest trains


@dataclass(frozen=True)
class Picture:
    """One labelled picture: its path inside the data folder, with forward slashes, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The pictures of each split, and what was used as what.

    Attributes:
        root: the data folder.
        classes: class names, sorted; a label is an index into them.
        train: pictures that train.
        val: pictures that choose the epoch and the hyperparameters.
        test: pictures read once a run, at the checkpoint that val chose.
        how: sentences that say where each split came from, and what was passed over.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    val: tuple[Picture, ...]
    test: tuple[Picture, ...]
    how: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (path, class name, split) of every picture."""
        parts = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(picture.path, self.classes[picture.label], name) for name, part in parts for picture in part]


def find_splits(root: Path, split_seed: int) -> Splits:
    """Return the splits of the pictures below `root`.

    `train/`, `val/` (or `validation/`) and `test/` are taken as they are. With `train/` and one other, that other is
    the test set and val is a stratified 20% of train. With class folders only, 70/15/15, stratified. Which picture
    goes where depends on `split_seed` and its path alone, never on the model's seed.

    Raises:
        DataError: no classes, a class too small to split, or a class that is tested but never trained.
    """
    folders = {entry.name: entry for entry in sorted(root.iterdir()) if entry.is_dir() and entry.name[0] != "."}
    given_val = [folders[name] for name in VAL_NAMES if name in folders]
    if "train" not in folders:
        return _split_classes(root, root, split_seed)
    if len(given_val) > 1:
        raise DataError(f"{root}: has both {given_val[0].name}/ and {given_val[1].name}/; keep one of them")
    if "test" in folders and given_val:
        parts = {"train": folders["train"], "val": given_val[0], "test": folders["test"]}
        return _take_splits(root, parts, None, split_seed)
    others = [*given_val, *([folders["test"]] if "test" in folders else [])]
    if not others:
        return _split_classes(root, folders["train"], split_seed)
    return _take_splits(root, {"train": folders["train"], "test": others[0]}, VAL_SHARE, split_seed)


def _take_splits(root: Path, parts: dict[str, Path], val_share: float | None, split_seed: int) -> Splits:
    """Use the folder's own splits, val carved out of train where `val_share` is given."""
    found = {name: _pictures_by_class(folder) for name, folder in parts.items()}
    classes, notes = _check_classes(parts["train"], found["train"], 1 if val_share is None else 2)
    for name, by_class in found.items():
        unknown = sorted(set(by_class) - set(classes))
        if any(by_class[label] for label in unknown):
            raise DataError(f"{parts[name]}: has pictures of {_names(unknown)}, but {parts['train']} has none to learn")
        missing = [label for label in classes if not by_class.get(label)]
        if missing:
            notes.append(f"{parts[name].name}/ has no picture of {_names(missing)}")
    how = [f"{name} is {folder.name}/" for name, folder in parts.items()]
    if val_share is not None:
        carved = {label: _carve(paths, root, split_seed, [val_share]) for label, paths in found["train"].items()}
        found["train"] = {label: rest for label, (rest, _) in carved.items()}
        found["val"] = {label: part for label, (_, part) in carved.items()}
        how[0] = f"train and val are {parts['train'].name}/, of which val is a stratified {val_share:.0%}"
    return _build(root, classes, found, how + notes)


def _split_classes(root: Path, folder: Path, split_seed: int) -> Splits:
    """Split a folder that holds class folders only."""
    by_class = _pictures_by_class(folder)
    classes, notes = _check_classes(folder, by_class, 3)
    found: dict[str, dict[str, list[Path]]] = {"train": {}, "val": {}, "test": {}}
    for label in classes:
        parts = _carve(by_class[label], root, split_seed, list(FOLDER_SHARES.values()))
        for name, part in zip(("train", *FOLDER_SHARES), parts, strict=True):
            found[name][label] = part
    how = "the folder has no splits of its own: train, val and test are a stratified 70%, 15% and 15% of it"
    return _build(root, classes, found, [how, *notes])


def _pictures_by_class(folder: Path) -> dict[str, list[Path]]:
    """Return class name -> pictures for the visible folders in `folder`."""
    classes = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    return {entry.name: list(find_pictures(entry)) for entry in classes}


def _check_classes(folder: Path, by_class: dict[str, list[Path]], least: int) -> tuple[list[str], list[str]]:
    """Return the classes that have pictures, and notes on those that have none."""
    classes = [label for label, paths in by_class.items() if paths]
    empty = [label for label, paths in by_class.items() if not paths]
    if len(classes) < 2:
        raise DataError(
            f"{folder}: found {len(classes)} classes with pictures, need at least 2. "
            "Expected one folder a class, such as train/cat/1.jpg, or cat/1.jpg without splits"
        )
    small = [f"{label} ({len(by_class[label])})" for label in classes if len(by_class[label]) < least]
    if small:
        raise DataError(
            f"{folder}: each class needs at least {least} pictures to be split, too few in {_names(small)}. "
            "Add pictures, or take the class folder out"
        )
    return classes, [f"{_names(empty)}: no pictures, not a class"] if empty else []


def _carve(paths: Sequence[Path], root: Path, seed: int, shares: Iterable[float]) -> list[list[Path]]:
    """Return the rest and then one part a share, each at least one picture, drawn by a hash of seed and path.

    Adding a picture to a folder moves few others from split to split, which drawing by a shuffle would not give.
    """
    key = {path: hashlib.sha256(f"{seed}/{path.relative_to(root).as_posix()}".encode()).digest() for path in paths}
    drawn = sorted(paths, key=key.__getitem__)
    parts = []
    for share in shares:
        count = max(1, round(share * len(paths)))
        parts.append(sorted(drawn[:count]))
        drawn = drawn[count:]
    return [sorted(drawn), *parts]


def _build(root: Path, classes: Sequence[str], found: dict[str, dict[str, list[Path]]], how: list[str]) -> Splits:
    def pictures(name: str) -> tuple[Picture, ...]:
        return tuple(
            Picture(path.relative_to(root).as_posix(), label)
            for label, class_name in enumerate(classes)
            for path in found[name].get(class_name, [])
        )

    splits = Splits(root, tuple(classes), pictures("train"), pictures("val"), pictures("test"), tuple(how))
    for name in ("val", "test"):
        if not getattr(splits, name):
            raise DataError(f"{root}: the {name} split has no pictures")
    return splits


def _names(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"
