"""Findings on copies: in train and test at once, under two labels, or merely counted twice."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from finetune.data.check.findings import Finding, SuggestedFix
from finetune.system.output import count_text

KEPT_FIRST = ("test", "val", "train", "")  # of a leak the copy stays that is looked at last: published numbers hold

Group = Sequence[str]


def copy_findings(
    exact: Sequence[Group], alike: Sequence[Group] | None, place_of: Mapping[str, tuple[str, str]]
) -> Iterator[Finding]:
    """Yield what copies would do to the results.

    Args:
        exact: groups of paths whose files are the same, byte for byte.
        alike: groups of paths whose images look the same; None where so many do that it means nothing.
        place_of: path -> (split, class).
    """
    same = {path: number for number, group in enumerate(exact) for path in group}
    near = [group for group in alike or () if len({same.get(path, path) for path in group}) > 1]
    for groups, kind, are in ((exact, "copy", "exact copies"), (near, "lookalike", "near copies")):
        yield from _findings([sorted(group) for group in groups], kind, are, place_of)
    if alike is None:
        yield Finding(
            "warning", "all-alike", "so many images look the same that near copies can't be told from others",
            "If they are frames of films, or shots of the same thing, give each film to one split by a CSV file.",
        )  # fmt: skip


def _findings(
    groups: list[list[str]], kind: str, are: str, place_of: Mapping[str, tuple[str, str]]
) -> Iterator[Finding]:
    torn = [group for group in groups if len({place_of[path][1] for path in group}) > 1]
    leaks = [group for group in groups if group not in torn and len({place_of[path][0] for path in group}) > 1]
    rest = [group for group in groups if group not in torn and group not in leaks]
    if torn:
        yield Finding(
            "error", f"{kind}-labels", f"{are} in several classes: {count_text(len(torn), 'group')}",
            "At most one label is right: keep the image there, or take all out.",
            _lines(torn), tuple(SuggestedFix(path, "remove", "", f"lies in several classes: {_with(path, group)}")
                                for group in torn for path in group),
        )  # fmt: skip
    if leaks:
        between = Counter(" and ".join(sorted({place_of[path][0] for path in group}, key=_rank)) for group in leaks)
        where = ", ".join(f"{number} in {names}" for names, number in between.items())
        yield Finding(
            "error", f"{kind}-leak", f"{are} in several splits: {count_text(len(leaks), 'group')} ({where})",
            "What was trained on is tested: take them out of train.", _lines(leaks),
            tuple(_spare(leaks, place_of, "a leak")),
        )  # fmt: skip
    if rest:
        yield Finding(
            "warning" if kind == "copy" else "note", f"{kind}-within",
            f"{are} in one class and split: {count_text(len(rest), 'group')}",
            "They count several times there.", _lines(rest), tuple(_spare(rest, place_of, "counts twice")),
        )  # fmt: skip


def _spare(groups: list[list[str]], place_of: Mapping[str, tuple[str, str]], why: str) -> Iterator[SuggestedFix]:
    """Yield all of each group but the one that stays."""
    for group in groups:
        stays = min(group, key=lambda path: KEPT_FIRST.index(place_of[path][0]))
        for path in group:
            if path != stays:
                yield SuggestedFix(path, "remove", "", f"{why}: as {stays}")


def _rank(split: str) -> int:
    return -KEPT_FIRST.index(split)


def _lines(groups: list[list[str]]) -> tuple[str, ...]:
    return tuple(" = ".join(group) for group in groups)


def _with(path: str, group: list[str]) -> str:
    return "as " + ", ".join(other for other in group if other != path)
