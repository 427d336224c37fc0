"""Findings on copies: across splits, under several labels, or counted twice."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from finetune.data.check.findings import Finding, Rule, SuggestedFix

KEPT_FIRST = ("test", "val", "train", "")  # the copy that stays: published test numbers then hold

ALL_ALIKE = Finding(
    "warning",
    "all-alike",
    "so many images look the same that near copies can't be found",
    "If they are frames of films, or shots of the same thing, assign each film to one split by a CSV file.",
)


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
