"""What makes runs of one recipe repetitions of each other, and how many of them there are, in words."""

from collections.abc import Iterable
from math import prod

import pandas as pd

from analysis.sources.test_sets import REPEATS


def replicate_label(runs: pd.DataFrame) -> str:
    """Return what the runs of one recipe differ in: "3 seeds", "5 folds", "3 seeds × 5 folds", or "1 seed".

    Where some are missing, as in an unfinished sweep: "7 runs of 2 seeds × 5 folds".
    """
    counts = {name: runs[column].nunique() for column, name in REPEATS.items() if column in runs}
    told = [f"{count} {name}s" for name, count in counts.items() if count > 1]
    if not told and len(runs) == 1:
        return "1 fold" if counts.get("fold") else "1 seed"
    whole = " × ".join(told)
    if prod(count for count in counts.values() if count > 1) == len(runs):
        return whole
    return f"{len(runs)} runs of {whole}" if told else f"{len(runs)} runs"


def replicate_kind(overs: Iterable[str]) -> str:
    """Return what one of these runs is called: a seed or a fold where they differ in nothing else, or a run.

    Args:
        overs: what `over` says of each recipe.
    """
    found = {text.split(" ", 1)[1].removesuffix("s") for text in overs}
    return found.pop() if len(found) == 1 and found <= {"seed", "fold"} else "run"


def join_replicate_labels(overs: Iterable[str]) -> str:
    """Return what `over` says of several recipes in one: "3 seeds", "2 and 3 seeds", "3 seeds × 5 folds"."""
    told = list(dict.fromkeys(overs))
    name = replicate_kind(told)
    if name == "run":
        return " and ".join(told)
    counts = sorted({int(text.split(" ")[0]) for text in told})
    return f"{' and '.join(map(str, counts))} {name}{'' if counts == [1] else 's'}"
