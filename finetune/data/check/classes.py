"""Findings on classes and splits, and on files that are not used."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from PIL import Image

from finetune.data.check.findings import Finding, SuggestedFix
from finetune.data.image_io import UNREADABLE
from finetune.data.layout import IMAGE_SUFFIXES, inside
from finetune.data.scan import suffix_of
from finetune.system.output import count_text

UNEQUAL = 10  # times as many images in the largest class as in the smallest
FEW = 10  # test images: one of them is ten points of recall
ASIDE = frozenset({".csv", ".json", ".txt", ".md", ".xml", ".yaml", ".yml", ".html", ".pdf", ".zip", ".gz", ".tar"})


def class_findings(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Yield what is wrong with the numbers of images.

    Args:
        counts: split -> class -> images; splits that are not known yet are one, called "".
    """
    trains = {label: n for label, n in counts.get("train", counts.get("", {})).items() if n}
    if trains and max(trains.values()) >= UNEQUAL * min(trains.values()):
        most, least = max(trains, key=trains.__getitem__), min(trains, key=trains.__getitem__)
        yield Finding(
            "warning", "imbalance",
            f"{most} has {trains[most] / trains[least]:.0f} times the training images of {least} "
            f"({trains[most]:,} and {trains[least]:,})",
            "Compare macro-F1 and recall by class, not accuracy alone; try `balance: weights` and `balance: sampler`.",
        )  # fmt: skip
    for split in ("val", "test"):
        if split not in counts:
            continue
        absent = [label for label in trains if not counts[split].get(label)]
        if absent:
            yield Finding(
                "warning", "absent", f"no image in {split}: {count_text(len(absent), 'class', 'classes')}",
                "What a network makes of these is not measured.", tuple(absent),
            )  # fmt: skip
    tests = counts.get("test", {})
    few = [f"{label} ({tests[label]})" for label in trains if 0 < tests.get(label, 0) < FEW]
    if few:
        yield Finding(
            "note", "few", f"fewer than {FEW} test images: {count_text(len(few), 'class', 'classes')}",
            "Their recall is a guess; `agent.py --folds 5` tests every image once.", tuple(few),
        )  # fmt: skip
    spelled: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted({label for by_class in counts.values() for label in by_class}):
        spelled["".join(filter(str.isalnum, label)).casefold() or label].append(label)
    twice = tuple(" and ".join(labels) for labels in spelled.values() if len(labels) > 1)
    if twice:
        yield Finding("warning", "spelling", "classes have names that differ in spelling alone",
                      "Give what belongs together to one class.", twice)  # fmt: skip


def unused_findings(root: Path, used: Collection[str]) -> Iterator[Finding]:
    """Yield what lies in the data folder and is no image of a class.

    Args:
        used: the paths, inside the folder, of the images that are.
    """
    dead, hidden, stray, others = [], Counter[str](), [], []
    for folder, below, files in os.walk(root):
        below.sort()
        for name in [name for name in below if name.startswith(".")]:
            hidden[inside(Path(folder, name), root)] += sum(len(found) for _, _, found in os.walk(Path(folder, name)))
            below.remove(name)
        for name in sorted(files):
            path = Path(folder, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                hidden[inside(path, root)] += 1
            elif not path.is_file():
                dead.append(inside(path, root))
            elif suffix not in IMAGE_SUFFIXES:
                others.append(path)
            elif inside(path, root) not in used:
                stray.append(inside(path, root))
    if dead:
        yield Finding("warning", "dead-link", f"dead links: {len(dead):,}", "They are passed over.",
                      tuple(dead), tuple(SuggestedFix(path, "remove", "", "a dead link") for path in dead))  # fmt: skip
    if stray:
        yield Finding("warning", "stray", f"in no class folder of a split: {count_text(len(stray), 'image')}",
                      "They are passed over; move them to where they belong.", tuple(stray))  # fmt: skip
    yield from _by_suffix(others, root)
    if hidden:
        yield Finding("note", "hidden", f"hidden, passed over: {count_text(hidden.total(), 'file')}", "", tuple(hidden))


def _by_suffix(others: list[Path], root: Path) -> Iterator[Finding]:
    """Yield which files with other suffixes are images, and which are none."""
    images, rest = {}, []
    for path in others:
        kind = None if path.suffix.lower() in ASIDE else _kind(path)
        if kind is None:
            rest.append(inside(path, root))
        else:
            images[inside(path, root)] = kind
    if images:
        fixes = [
            SuggestedFix(path, "rename", str(PurePosixPath(path).with_suffix(suffix)), f"it is {kind}")
            for path, kind in images.items()
            if (suffix := suffix_of(kind)) in IMAGE_SUFFIXES
        ]
        yield Finding(
            "warning", "unknown-suffix", f"a suffix that is passed over: {count_text(len(images), 'image')}",
            f"Rename or convert them; read are {', '.join(sorted(IMAGE_SUFFIXES))}.",
            tuple(f"{path} is {kind}" for path, kind in images.items()), tuple(fixes),
        )  # fmt: skip
    if rest:
        yield Finding("note", "other", f"no images, passed over: {count_text(len(rest), 'file')}", "", tuple(rest))


def _kind(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return str(image.format)
    except UNREADABLE:
        return None
