"""Findings on copies and groups: in several splits or classes, or counted twice; on names that look like series."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from finetune.data.check.findings import Finding, Rule, SuggestedFix
from finetune.data.groups import find_series, groups_across_splits

KEPT_FIRST = ("test", "val", "train", "")  # the copy that stays: published test numbers then hold

ALL_ALIKE = Finding(
    "warning",
    "all-alike",
    "so many images look the same that near copies can't be found",
    "If they are frames of films, or shots of the same thing, assign each film to one split by a CSV file.",
)

GROUP_LEAK = Rule(
    "error",
    "group-leak",
    "groups in several splits",
    "The test would measure what was trained on: give each group one split, or let this project split the images.",
    ("group",),
)
SERIES_SHOWN = 3


def group_findings(split_and_class: Mapping[str, tuple[str, str]], groups: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the finding on groups in several splits; without groups, one on names that look like series.

    Args:
        groups: path -> group (see groups.py).
    """
    rows = [(path, label, split) for path, (split, label) in split_and_class.items()]
    torn = groups_across_splits(rows, groups)
    yield from GROUP_LEAK.findings([f"{group}: {', '.join(splits)}" for group, splits in torn.items()])
    if not groups:
        for pattern, series in find_series(list(split_and_class), len({label for _, label, _ in rows})):
            yield Finding(
                "note",
                "series",
                f"names that look like series of images of the same thing: {len(series):,} series, such as "
                f"{', '.join(f'{name} ({count} images)' for name, count in list(series.items())[:SERIES_SHOWN])}",
                "If those are of one patient, plant or film, keep them in one split: "
                f"group_by={shlex.quote(pattern)} in runs, --group-by in check and split.",
            )
            return


def copy_findings(
    exact: Sequence[Sequence[str]],
    alike: Sequence[Sequence[str]] | None,
    split_and_class: Mapping[str, tuple[str, str]],
) -> Iterator[Finding]:
    """Yield the findings on exact and near copies.

    Args:
        exact: groups of paths with the same bytes.
        alike: groups of paths whose images look the same; None where too many do for it to mean anything.
        split_and_class: both for each path.
    """
    content = {path: number for number, group in enumerate(exact) for path in group}
    near = [group for group in alike or () if len({content.get(path, path) for path in group}) > 1]
    for groups, kind, name in ((exact, "copy", "exact copies"), (near, "lookalike", "near copies")):
        yield from _findings([sorted(group) for group in groups], kind, name, split_and_class)
    if alike is None:
        yield ALL_ALIKE


def _findings(
    groups: list[list[str]], kind: str, name: str, split_and_class: Mapping[str, tuple[str, str]]
) -> Iterator[Finding]:
    splits = {path: split for path, (split, _) in split_and_class.items()}
    mixed = [group for group in groups if len({split_and_class[path][1] for path in group}) > 1]
    leaks = [group for group in groups if group not in mixed and len({splits[path] for path in group}) > 1]
    rest = [group for group in groups if group not in mixed and group not in leaks]
    yield from Rule(
        "error",
        f"{kind}-labels",
        f"{name} in several classes",
        "At most one label is right: keep the image there, or take all out.",
        ("group",),
    ).findings(
        _lines(mixed),
        [
            SuggestedFix(path, "remove", "", f"lies in several classes: as {', '.join(p for p in group if p != path)}")
            for group in mixed
            for path in group
        ],
    )
    between = Counter(" and ".join(sorted({splits[path] for path in group}, key=_rank)) for group in leaks)
    yield from Rule(
        "error",
        f"{kind}-leak",
        f"{name} in several splits",
        "The test would measure what was trained on: take them out of train.",
        ("group",),
    ).findings(
        _lines(leaks),
        _removals(leaks, splits, "a leak"),
        f" ({', '.join(f'{count} in {names}' for names, count in between.items())})",
    )
    yield from Rule(
        "warning" if kind == "copy" else "note",
        f"{kind}-within",
        f"{name} in one class and split",
        "They count several times there.",
        ("group",),
    ).findings(_lines(rest), _removals(rest, splits, "counts twice"))


def _removals(groups: list[list[str]], splits: Mapping[str, str], reason: str) -> list[SuggestedFix]:
    """Return fixes that remove all of each group but one."""
    fixes = []
    for group in groups:
        kept = max(group, key=lambda path: _rank(splits[path]))
        fixes += [SuggestedFix(path, "remove", "", f"{reason}: as {kept}") for path in group if path != kept]
    return fixes


def _rank(split: str) -> int:
    return -KEPT_FIRST.index(split)


def _lines(groups: list[list[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]
