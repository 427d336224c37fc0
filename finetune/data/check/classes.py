"""Findings on classes and splits, and on files in the data folder that no run reads."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from PIL import Image

from finetune.data.check.findings import Finding, Rule, SuggestedFix
from finetune.data.folder_walk import IMAGE_SUFFIXES, is_passed_over
from finetune.data.images.image_io import UNREADABLE
from finetune.data.layout import inside

UNEQUAL = 10  # times as many images in the largest class as in the smallest
FEW = 10  # test images: one of them is ten points of recall
DOCUMENT_SUFFIXES = frozenset(
    {".csv", ".json", ".txt", ".md", ".xml", ".yaml", ".yml", ".html", ".pdf", ".zip", ".gz", ".tar"}
)

CLASSES = ("class", "classes")
FEW_TESTS = Rule(
    "note",
    "few",
    f"fewer than {FEW} test images",
    "Their recall is a guess; `agent.py --folds 5` tests every image once.",
    CLASSES,
)
ABSENT = Rule("warning", "absent", "no image", "Nothing measures how well a network recognises these.", CLASSES)
ABSENT_FROM_DRAWN = replace(
    ABSENT,
    level="error",
    advice="Too few of their images are neither copies of each other nor of one group: add others, or take them out.",
)
SPELLING = Rule(
    "warning",
    "spelling",
    "names of classes that differ in spelling alone",
    "Give what belongs together to one class.",
    ("group",),
)
DEAD_LINK = Rule("warning", "dead-link", "dead links", "Runs skip them.", ("file",))
STRAY = Rule("warning", "stray", "in no class folder of a split", "Runs skip them; move them to where they belong.")
UNKNOWN_SUFFIX = Rule(
    "warning",
    "unknown-suffix",
    "a suffix that runs skip",
    f"Rename or convert them; runs read {', '.join(sorted(IMAGE_SUFFIXES))}.",
)
OTHER = Rule("note", "other", "no images, skipped", "", ("file",))
UNREADABLE_FOLDER = Rule(
    "warning",
    "unreadable-folder",
    "folders that can't be read",
    "What is in them is missing: change their permissions.",
    ("folder",),
)
HIDDEN = Rule("note", "hidden", "hidden or made by programs, skipped", "", ("file or folder", "files and folders"))


def class_findings(counts: Mapping[str, Mapping[str, int]], drawn: Collection[str] = ()) -> Iterator[Finding]:
    """Yield findings on the numbers of images and the names of classes.

    Args:
        counts: split -> class -> images; data without splits is one split called "".
        drawn: the splits that the data does not have, but this project draws.
    """
    train = {label: count for label, count in counts.get("train", counts.get("", {})).items() if count}
    yield from _imbalance(train)
    for split in ("val", "test"):
        if split in counts:
            rule = ABSENT_FROM_DRAWN if split in drawn else ABSENT
            rule = replace(rule, text=f"no image in {split}")
            yield from rule.findings([label for label in train if not counts[split].get(label)])
    test = counts.get("test", {})
    yield from FEW_TESTS.findings([f"{label} ({test[label]})" for label in train if 0 < test.get(label, 0) < FEW])
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted({label for by_class in counts.values() for label in by_class}):
        spellings["".join(filter(str.isalnum, label)).casefold() or label].append(label)
    yield from SPELLING.findings([" and ".join(labels) for labels in spellings.values() if len(labels) > 1])


def _imbalance(train: Mapping[str, int]) -> Iterator[Finding]:
    """Yield the finding on classes of very unequal size; it lists none, as its text names the extremes."""
    if train and max(train.values()) >= UNEQUAL * min(train.values()):
        largest, smallest = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
        yield Finding(
            "warning",
            "imbalance",
            f"{largest} has {train[largest] / train[smallest]:.0f} times the training images of {smallest} "
            f"({train[largest]:,} and {train[smallest]:,})",
            "Compare macro-F1 and recall by class, not accuracy alone; try `balance: weights` and `balance: sampler`.",
        )


def unused_findings(root: Path, used: Collection[str]) -> Iterator[Finding]:
    """Yield findings on files in the data folder that are no image of a class.

    Args:
        used: paths, inside the folder, of the images that are.
    """
    dead, hidden, stray = [], [], []
    kinds, others = {}, []
    for path in _files(root):
        name = inside(path, root)
        if is_passed_over(path.name):
            hidden.append(name)
        elif not path.is_file():
            dead.append(name)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            if name not in used:
                stray.append(name)
        elif kind := _kind(path):
            kinds[name] = kind
        else:
            others.append(name)
    yield from DEAD_LINK.findings(dead, [SuggestedFix(path, "remove", "", "a dead link") for path in dead])
    yield from STRAY.findings(stray)
    yield from UNKNOWN_SUFFIX.findings_of_kinds(kinds)
    yield from OTHER.findings(others)
    yield from HIDDEN.findings(hidden)


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below `root`, and folders that are passed over without what is in them."""
    for folder, below, files in os.walk(root):
        below.sort()
        yield from (Path(folder, name) for name in below if is_passed_over(name))
        below[:] = [name for name in below if not is_passed_over(name)]
        yield from (Path(folder, name) for name in sorted(files))


def _kind(path: Path) -> str | None:
    """Return what kind of image a file is by its content, or None for other files."""
    if path.suffix.lower() in DOCUMENT_SUFFIXES:
        return None
    try:
        with Image.open(path) as image:
            return str(image.format)
    except UNREADABLE:
        return None
