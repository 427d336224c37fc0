"""The train, val and test splits: taken from the folder's layout, drawn by hash where it has none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.data.duplicates import exact_duplicates
from finetune.data.groups import group_notes, groups_across_splits
from finetune.data.hash_splitter import HashSplitter, units_of_images
from finetune.data.layout import DatasetLayout, PathsByClass, inside, names, read_layout
from finetune.data.scan import ScanResult, merge_overlapping
from finetune.errors import DataError

VAL_SHARE = 0.20  # of train, where there is a test split and no val; of what a fold leaves
FOLDER_SHARES = {"val": 0.15, "test": 0.15}  # where nothing is split; the rest trains

PathsBySplit = dict[str, PathsByClass]


@dataclass(frozen=True)
class Sample:
    """One labelled image: its path inside the data folder, with forward slashes, and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The images of each split.

    Attributes:
        root: the data folder.
        classes: class names, sorted; a label is an index into them.
        train: images that train.
        val: images that choose the epoch and the hyperparameters.
        test: images read once a run, at the checkpoint that val chose.
        notes: where each split came from, and what was skipped; one sentence each.
        unreadable: path -> reason, for images that can't be read.
        groups: path -> group, of the images that have one (see groups.py).
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]
    unreadable: Mapping[str, str]
    groups: Mapping[str, str] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (path, class name, split) of every image."""
        parts = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(sample.path, self.classes[sample.label], name) for name, part in parts for sample in part]

    def table(self) -> tuple[list[str], list[tuple[str, ...]]]:
        """Return columns and rows of a CSV file that can be used as data: those of `rows`, and groups if there are."""
        if not self.groups:
            return ["path", "label", "split"], list(self.rows())
        return ["path", "label", "split", "group"], [(*row, self.groups.get(row[0], "")) for row in self.rows()]


def find_splits(
    place: Path | DatasetLayout,
    split_seed: int,
    folds: int | None = None,
    fold: int | None = None,
    scan: ScanResult = ScanResult(),  # noqa: B008  (frozen)
) -> Splits:
    """Return the splits of the images in a folder, or that a CSV file lists.

    `train`, `val` and `test` are taken as they are. With `train` and one other, that other is the test set and val is a
    stratified 20% of train. With classes only, 70/15/15, stratified. With folds, images are dealt into so many parts,
    stratified: where there is a test set, it stays, and part `fold` of the rest is val; elsewhere it is the test set,
    and val is a stratified 20% of the rest.

    Which image goes where depends on `split_seed` and its path alone, never on the model's seed. Copies of an image,
    images that look the same and images of one group (see groups.py) stay together. Train is served first.

    Args:
        scan: of the images; unreadable ones are left out.

    Raises:
        DataError: no classes, a class too small to split, or a class without a training image.
    """
    layout = place if isinstance(place, DatasetLayout) else read_layout(place)
    unreadable = scan.unreadable
    parts = {part: _readable(by_class, layout.root, unreadable) for part, by_class in layout.parts.items()}
    copies = _copies(parts, layout.root, scan)
    units = units_of_images(_pooled(parts, parts), layout.root, copies, layout.groups)
    splitter = HashSplitter(split_seed, units, folds or 0, fold or 0)
    if "" in parts:
        classes, warnings = _check_classes(layout.display_names[""], parts[""], max(3, folds or 0))
        found, notes = _split_all(parts[""], classes, splitter)
    else:
        minimum = folds or (1 if {"val", "test"} <= parts.keys() else 2)
        pool = _pooled(parts, ("train", "val")) if folds is not None and "test" in parts else parts["train"]
        classes, warnings = _check_classes(layout.display_names["train"], pool, minimum)
        found, notes = _complete_splits(
            parts, {label: pool[label] for label in classes}, layout.display_names, splitter
        )
        warnings += _missing_notes(layout, parts, classes)
    notes += [*warnings, *_dealing_notes(found, parts, classes), *layout.notes, *_unreadable_notes(unreadable)]
    notes += _copy_notes(copies, found)
    if scan.alike is None:
        notes.append("so many images look the same that only exact copies are kept on one side")
    splits = _build(layout.root, classes, found, notes, unreadable)
    return _with_groups(splits, layout.groups) if layout.groups else splits


def _with_groups(splits: Splits, groups: Mapping[str, str]) -> Splits:
    """Return the splits with their groups, and notes on them."""
    rows = splits.rows()
    notes = [*splits.notes, *group_notes([path for path, *_ in rows], groups)]
    if torn := groups_across_splits(rows, groups):
        hint = "`python -m finetune.data check` lists them"
        notes.append(f"warning: {len(torn)} of the groups lie in several of the given splits; {hint}")
    return replace(splits, notes=tuple(notes), groups=groups)


def _split_all(
    by_class: PathsByClass, classes: Sequence[str], splitter: HashSplitter
) -> tuple[PathsBySplit, list[str]]:
    """Split data that has no splits of its own."""
    by_class = {label: by_class[label] for label in classes}
    if not splitter.folds:
        drawn = splitter.carve(by_class, list(FOLDER_SHARES.values()))
        note = "the data has no splits of its own: train, val and test are a stratified 70%, 15% and 15% of it"
        return dict(zip(("train", *FOLDER_SHARES), drawn, strict=True)), [note]
    rest, test = splitter.take_fold(by_class)
    train, val = splitter.carve(rest, [VAL_SHARE])
    note = f"test is {splitter.describe_fold()} of all images, val a stratified {VAL_SHARE:.0%} of the rest"
    return {"train": train, "val": val, "test": test}, [note]


def _complete_splits(
    parts: PathsBySplit, pool: PathsByClass, display_names: Mapping[str, str], splitter: HashSplitter
) -> tuple[PathsBySplit, list[str]]:
    """Use the existing splits; carve missing ones, and folds, out of `pool`."""
    test = "test" if "test" in parts else "val"
    test_note = f"test is {display_names[test]}"
    if splitter.folds:
        pooled = " and ".join(display_names[part] for part in ("train", "val") if part in parts and part != test)
        train, val = splitter.take_fold(pool)
        note = f"val is {splitter.describe_fold()} of {pooled}, and the rest is train"
    elif {"val", "test"} <= parts.keys():
        return dict(parts), [f"{name} is {display_names[name]}" for name in parts]
    else:
        train, val = splitter.carve(pool, [VAL_SHARE])
        note = f"train and val are {display_names['train']}, of which val is a stratified {VAL_SHARE:.0%}"
    return {"train": train, "val": val, "test": parts[test]}, [note, test_note]


def _pooled(parts: PathsBySplit, pooled: Iterable[str]) -> PathsByClass:
    """Return these parts as one."""
    chosen = [parts[part] for part in pooled if part in parts]
    labels = sorted({label for by_class in chosen for label in by_class})
    return {label: [path for by_class in chosen for path in by_class.get(label, [])] for label in labels}


def _readable(by_class: PathsByClass, root: Path, unreadable: Mapping[str, str]) -> PathsByClass:
    return {
        label: [path for path in paths if inside(path, root) not in unreadable] for label, paths in by_class.items()
    }


def _unreadable_notes(unreadable: Mapping[str, str]) -> list[str]:
    lines = [f"{path} ({reason})" for path, reason in sorted(unreadable.items())]
    return [f"left out, as they can't be read: {names(lines)}"] if lines else []


def _copies(parts: PathsBySplit, root: Path, scan: ScanResult) -> list[list[Path]]:
    """Return the groups of images that are copies of each other, or look the same."""
    here = {inside(path, root): path for by_class in parts.values() for paths in by_class.values() for path in paths}
    exact = [[inside(path, root) for path in group] for group in exact_duplicates(here.values())]
    alike = [[name for name in group if name in here] for group in scan.alike or ()]
    return [sorted(here[name] for name in group) for group in merge_overlapping([*exact, *alike]) if len(group) > 1]


def _copy_notes(groups: Sequence[Sequence[Path]], found: PathsBySplit) -> list[str]:
    """Return warnings on copies that make results look better than they are."""
    part_of = {path: name for name, by_class in found.items() for paths in by_class.values() for path in paths}
    label_of = {path: label for by_class in found.values() for label, paths in by_class.items() for path in paths}
    hint = "`python -m finetune.data check` lists them"
    notes = []
    for name in ("val", "test"):
        leaks = sum(
            part_of.get(path) == name and any(part_of.get(copy) == "train" for copy in group)
            for group in groups
            for path in group
        )
        if leaks:
            notes.append(f"warning: {leaks} of the images in {name} are in train, too, or look the same; {hint}")
    torn = sum(len({label_of.get(path) for path in group}) > 1 for group in groups)
    return (
        [*notes, f"warning: {torn} group{'s'[: torn > 1]} of copies or lookalikes in more than one class; {hint}"]
        if torn
        else notes
    )


def _dealing_notes(found: PathsBySplit, parts: PathsBySplit, classes: Sequence[str]) -> list[str]:
    """Return warnings on classes that a drawn split lacks, as their images can't be parted.

    Raises:
        DataError: a class has no training image.
    """
    notes = []
    for name, by_class in found.items():
        missing = [label for label in classes if not by_class.get(label)]
        if missing and name == "train":
            raise DataError(
                f"data: no training image of {names(missing)}: all images of {'it' if len(missing) == 1 else 'each'} "
                "are copies of each other, look the same or belong to one group, and lie in val or test. Add other "
                "images, take the class out, or give the splits in a CSV file (docs/your-data.md)"
            )
        if missing and by_class is not parts.get(name):
            notes.append(
                f"warning: {name} has no image of {names(missing)}: too few that are neither copies of each other nor "
                "of one group"
            )
    return notes


def _missing_notes(layout: DatasetLayout, parts: PathsBySplit, classes: Sequence[str]) -> list[str]:
    """Return notes on classes that a split lacks.

    Raises:
        DataError: a split has a class that train lacks.
    """
    notes = []
    for part, by_class in parts.items():
        display_name = layout.display_names[part]
        unknown = sorted(set(by_class) - set(classes))
        if any(by_class[label] for label in unknown):
            raise DataError(
                f"{layout.root}: {display_name} has images of {names(unknown)}, but train has none to learn from"
            )
        missing = [label for label in classes if not by_class.get(label)]
        if missing:
            notes.append(f"{display_name} has no image of {names(missing)}")
    return notes


def _check_classes(display_name: str, by_class: PathsByClass, minimum: int) -> tuple[list[str], list[str]]:
    """Return the classes that have images, and notes on those that have none."""
    classes = sorted(label for label, paths in by_class.items() if paths)
    empty = [label for label, paths in by_class.items() if not paths]
    if len(classes) < 2:
        raise DataError(
            f"{display_name}: found {len(classes)} classes with images, need at least 2. "
            "Expected one folder a class, such as train/cat/1.jpg, or cat/1.jpg without splits"
        )
    small = [f"{label} ({len(by_class[label])})" for label in classes if len(by_class[label]) < minimum]
    if small:
        raise DataError(
            f"{display_name}: each class needs at least {minimum} images to be split, too few in {names(small)}. "
            "Add images, or take the class out"
        )
    return classes, [f"{names(empty)}: no images, not a class"] if empty else []


def _build(
    root: Path, classes: Sequence[str], found: PathsBySplit, notes: list[str], unreadable: Mapping[str, str]
) -> Splits:
    def samples(name: str) -> tuple[Sample, ...]:
        return tuple(
            Sample(inside(path, root), label)
            for label, class_name in enumerate(classes)
            for path in found[name].get(class_name, [])
        )

    splits = Splits(root, tuple(classes), samples("train"), samples("val"), samples("test"), tuple(notes), unreadable)
    for name in ("val", "test"):
        if not getattr(splits, name):
            raise DataError(f"{root}: the {name} split has no images")
    return splits
