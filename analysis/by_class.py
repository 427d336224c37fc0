"""How each class fared: what a mean over all pictures hides where classes are of unequal size."""

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

RECALL = "test/recall"  # of a run's summary: class -> share of its test pictures that were named rightly


def mean_recalls(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return class -> mean recall over these runs; empty unless all of them tell (earlier versions did not).

    A class without test pictures in a run, such as a rare one in a fold, has its mean over the others.
    """
    told = [recall for recall in runs[RECALL] if isinstance(recall, Mapping)]
    if len(told) < len(runs):
        return pd.Series(dtype=float)
    return pd.DataFrame(told).mean().dropna()


def lowest(recalls: "pd.Series[float]") -> tuple[float, str] | None:
    """Return the lowest recall and its class, the first by name and how many more where several share it."""
    if recalls.empty:
        return None
    names = sorted(recalls.index[recalls == recalls.min()])
    return float(recalls.min()), names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def recall_frame(chosen: pd.DataFrame, pictures: Iterable[Mapping[str, str]]) -> pd.DataFrame:
    """Return the mean recall of each strategy and class.

    Args:
        chosen: the runs of the chosen recipes.
        pictures: test sets, path -> label; those that several share count once.

    Returns:
        columns strategy, class, recall, and support (test pictures of the class); empty where no strategy tells.
    """
    labels: dict[str, str] = {}
    for some in pictures:
        labels |= some
    support = Counter(labels.values())
    return pd.DataFrame(
        [
            {"strategy": strategy, "class": name, "recall": recall, "support": support[str(name)]}
            for strategy, runs in chosen.groupby("strategy")
            for name, recall in mean_recalls(runs).items()
        ],
        columns=["strategy", "class", "recall", "support"],
    )
