"""Deals images into parts by a hash of seed and path, stratified, with copies and groups on one side."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from finetune.data.layout import PathsByClass, inside
from finetune.data.scan import merge_overlapping

REST = 0  # number of the part that trains


class Unit(NamedTuple):
    """Images that are dealt together.

    Attributes:
        key: is hashed: a path, or the name of a group.
        label: the class, where each class deals its images by itself; "" for a unit that may span classes.
    """

    key: str
    label: str


def units_of_images(
    by_class: Mapping[str, Iterable[Path]], root: Path, copies: Sequence[Sequence[Path]], groups: Mapping[str, str]
) -> dict[Path, Unit]:
    """Return image -> unit: copies of each other, images of one group, or one image.

    A group stays together whatever its classes, and takes the copies of its images with it. Without groups, copies in
    several classes are dealt by each class: one of their labels is wrong, and no side is right.

    Args:
        copies: groups of images that are copies of each other or look the same.
        groups: path inside `root` -> name of its group; images without a group are missing.
    """
    named = {path: inside(path, root) for paths in by_class.values() for path in paths}
    first = {path: named[group[0]] for group in copies for path in group if path in named}
    if not groups:
        return {path: Unit(first.get(path, named[path]), label) for label, paths in by_class.items() for path in paths}
    members: dict[str, list[str]] = {}
    for name in named.values():
        if name in groups:
            members.setdefault(groups[name], []).append(name)
    unit_of: dict[str, Unit] = {}
    for together in merge_overlapping([*members.values(), *([named[path] for path in group] for group in copies)]):
        names = {groups[name] for name in together if name in groups}
        key = f"group {min(names)}" if names else together[0]
        unit_of |= dict.fromkeys(together, Unit(key, ""))
    return {path: unit_of.get(name, Unit(name, "")) for path, name in named.items()}


@dataclass(frozen=True)
class HashSplitter:
    """Draws units by a hash of seed and key: one more image moves few others, which a shuffle would not give.

    Attributes:
        units: of all images (see `units_of_images`).
        folds, fold: how many parts the images are dealt into, or 0; and the one to take.
    """

    seed: int
    units: Mapping[Path, Unit]
    folds: int
    fold: int

    def carve(self, by_class: PathsByClass, shares: Sequence[float]) -> list[PathsByClass]:
        """Return the rest, which trains, and then one part a share, each at least one image of a class if it can.

        The rest comes first: each class keeps a unit there, and one that is larger than a share stays there, unless
        the part would have no image of the class.
        """
        part_of: dict[Unit, int] = {}
        for paths in self._scarce_first(by_class):
            sizes = self._sizes(paths)
            free = [unit for unit in sizes if unit not in part_of]
            has_rest = any(part_of.get(unit) == REST for unit in sizes)
            for number, share in enumerate(shares, 1):
                wanted = max(1, round(share * len(paths)))
                dealt = sum(size for unit, size in sizes.items() if part_of.get(unit) == number)
                kept = len(shares) - number + (not has_rest)
                drawn = _draw(free, sizes, wanted, dealt, len(free) - kept)
                free = [unit for unit in free if unit not in drawn]
                part_of |= dict.fromkeys(drawn, number)
            part_of |= dict.fromkeys(free, REST)
        return [
            {
                label: sorted(path for path in paths if part_of[self.units[path]] == number)
                for label, paths in by_class.items()
            }
            for number in range(len(shares) + 1)
        ]

    def take_fold(self, by_class: PathsByClass) -> tuple[PathsByClass, PathsByClass]:
        """Return the rest and part `fold`. Each class goes on dealing where the one before it has ended."""
        hand_of: dict[Unit, int] = {}
        turns = 0
        for paths in self._scarce_first(by_class):
            sizes = self._sizes(paths)
            held = Counter[int]()
            for unit, size in sizes.items():
                if unit in hand_of:
                    held[hand_of[unit]] += size
            for unit in [unit for unit in sizes if unit not in hand_of]:
                # Groups differ in size: the next goes where the class has fewest images.
                loads = [(held[hand] if not unit.label else 0, (hand - turns) % self.folds, hand)
                         for hand in range(self.folds)]  # fmt: skip
                hand_of[unit] = min(loads)[-1]
                held[hand_of[unit]] += sizes[unit]
                turns += 1
        rest, part = (
            {
                label: sorted(path for path in paths if (hand_of[self.units[path]] == self.fold) == taken)
                for label, paths in by_class.items()
            }
            for taken in (False, True)
        )
        return rest, part

    def describe_fold(self) -> str:
        return f"part {self.fold} of {self.folds} (counted from 0)"

    def _scarce_first(self, by_class: PathsByClass) -> list[list[Path]]:
        """Return the images of each class; where units span classes, the class with the fewest units comes first."""
        classes = list(by_class.values())
        spans = any(not self.units[path].label for paths in classes for path in paths)
        return sorted(classes, key=lambda paths: len(self._sizes(paths))) if spans else classes

    def _sizes(self, paths: Iterable[Path]) -> dict[Unit, int]:
        """Return unit -> its images among `paths`, in the order in which the units are drawn."""
        sizes = Counter(self.units[path] for path in paths)
        return {unit: sizes[unit] for unit in sorted(sizes, key=self._hash)}

    def _hash(self, unit: Unit) -> bytes:
        return hashlib.sha256(f"{self.seed}/{unit.key}".encode()).digest()


def _draw(free: Sequence[Unit], sizes: Mapping[Unit, int], wanted: int, dealt: int, most: int) -> Collection[Unit]:
    """Return the units of one class, at most `most`, that bring a part from `dealt` to about `wanted` images."""
    drawn: dict[Unit, None] = {}
    large = sorted((unit for unit in free if sizes[unit] > wanted), key=sizes.__getitem__)
    for unit in [*(unit for unit in free if sizes[unit] <= wanted), *large]:
        comes_closer = not dealt or dealt + sizes[unit] - wanted < wanted - dealt
        if dealt >= wanted or len(drawn) >= most:
            break
        if sizes[unit] <= wanted or comes_closer:
            drawn[unit] = None
            dealt += sizes[unit]
    return drawn.keys()
