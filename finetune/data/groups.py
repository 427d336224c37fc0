"""Groups of images that belong on one side of a split: those of one patient, plant, film or place."""

import argparse
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from finetune.errors import DataError

SHOWN = 3  # names in a message
MIN_SHARE = 1 / 2  # of all images, in series of two or more: names that merely end in a number are no series
# What series of images are often called -> a `group_by` that finds them.
SERIES_PATTERNS = (
    r"([^/]*[^/\s_.(-])[\s_.(-]+[A-Za-z]{0,6}\d+\)?\.\w+$",  # patient01_03.jpg, plant-7-view2.jpg, film 3 (12).png
    r"^[^/]+/(?:[^/]+/)?([^/]+)/[^/]+$",  # a folder for each patient inside of those of the classes
)


def add_group_by(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that split images."""
    parser.add_argument(
        "--group-by", metavar="PATTERN",
        help="keep images of one group in one split, as the field group_by of a run: a regular expression on the path "
        "inside the data folder, whose first capture group (or whole match) names the group",
    )  # fmt: skip


def groups_by_pattern(paths: Iterable[str], pattern: str) -> dict[str, str]:
    """Return path -> group for the paths in which the pattern is found.

    The group is the text of the pattern's first capture group that takes part, or else of the whole match.

    Args:
        paths: inside the data folder, with forward slashes.
        pattern: a regular expression (Python's `re`), searched anywhere in the path.

    Raises:
        DataError: it is no regular expression, or found in no path.
    """
    paths = list(paths)
    try:
        searched = re.compile(unicodedata.normalize("NFC", pattern))
    except re.error as error:
        raise DataError(f"group_by: {pattern!r} is no regular expression: {error}") from error
    found = {path: match for path in paths if (match := searched.search(unicodedata.normalize("NFC", path)))}
    if paths and not found:
        raise DataError(
            f"group_by: {pattern!r} is found in none of the {len(paths):,} paths, such as {', '.join(paths[:SHOWN])}. "
            "It is a regular expression on the path inside the data folder, such as '([^/]+)_[0-9]+[.]jpg$'"
        )
    return {
        path: next((text for text in match.groups() if text is not None), match[0]) for path, match in found.items()
    }


def group_notes(paths: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """Return a sentence on the number of groups, and one on images without a group, if there are groups."""
    if not groups:
        return []
    named = [path for path in paths if path in groups]
    count = len({groups[path] for path in named})
    alone = len(paths) - len(named)
    rest = f"; the other {alone:,}, such as {next(p for p in paths if p not in groups)}, are in none" if alone else ""
    return [f"{len(named):,} images are in {count:,} groups, each of which stays in one split{rest}"]


def groups_across_splits(rows: Iterable[tuple[str, str, str]], groups: Mapping[str, str]) -> dict[str, list[str]]:
    """Return group -> its splits, sorted, for groups with images in several splits; rows as in `Splits.rows`."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for path, _, split in rows:
        if path in groups:
            splits[groups[path]].add(split)
    return {group: sorted(splits[group]) for group in sorted(splits) if len(splits[group]) > 1}


def find_series(paths: Sequence[str], classes: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield (pattern, series -> images) for each kind of names that looks like series of images of the same thing.

    There must be more series than classes, or the names say no more than the class does.
    """
    for pattern in SERIES_PATTERNS:
        members: defaultdict[str, int] = defaultdict(int)
        for path in paths:
            if match := re.search(pattern, path):
                members[match[1]] += 1
        series = {name: count for name, count in members.items() if count > 1}
        if len(series) > max(classes, 2) and sum(series.values()) >= MIN_SHARE * len(paths):
            yield pattern, series
