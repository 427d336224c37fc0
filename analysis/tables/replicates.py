"""How often a recipe was repeated, and over what: "3 seeds", "3 seeds × 5 folds"."""

from collections.abc import Iterable
from math import prod

import pandas as pd

from analysis.sources.test_sets import REPLICATES


def replicate_label(runs: pd.DataFrame) -> str:
    """Return what the runs of one recipe differ in: "3 seeds", "5 folds", "3 seeds × 5 folds", or "1 seed".

    Where some are missing, as in an unfinished sweep: "7 runs of 2 seeds × 5 folds".
    """
    counts = {name: runs[column].nunique() for column, name in REPLICATES.items() if column in runs}
    several = [f"{count} {name}s" for name, count in counts.items() if count > 1]
    if not several and len(runs) == 1:
        return "1 fold" if counts.get("fold") else "1 seed"
    product = " × ".join(several)
    if prod(count for count in counts.values() if count > 1) == len(runs):
        return product
    return f"{len(runs)} runs of {product}" if several else f"{len(runs)} runs"


def replicate_kind(labels: Iterable[str]) -> str:
    """Return "seed" or "fold" where the runs of recipes with these labels differ in nothing else, else "run".

    Args:
        labels: see `replicate_label`.
    """
    kinds = {label.split(" ", 1)[1].removesuffix("s") for label in labels}
    return kinds.pop() if len(kinds) == 1 and kinds <= {"seed", "fold"} else "run"


def join_replicate_labels(labels: Iterable[str]) -> str:
    """Return the labels of several recipes as one: "3 seeds", "2 and 3 seeds", "3 seeds × 5 folds"."""
    distinct = list(dict.fromkeys(labels))
    kind = replicate_kind(distinct)
    if kind == "run":
        return " and ".join(distinct)
    counts = sorted({int(label.split(" ")[0]) for label in distinct})
    return f"{' and '.join(map(str, counts))} {kind}{'' if counts == [1] else 's'}"
