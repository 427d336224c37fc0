"""The Pareto front of cost and accuracy."""

import numpy as np
import pandas as pd


def pareto_front(points: pd.DataFrame) -> list[str]:
    """Return the names that no other beats: none is as cheap or cheaper and better, or as good or better and cheaper.

    Args:
        points: cost and score, indexed by name.

    Returns:
        names, the cheapest first.
    """
    front: list[str] = []
    best = -np.inf
    for name, row in points.sort_values(["cost", "score"], ascending=[True, False], kind="stable").iterrows():
        if row["score"] > best:
            front.append(str(name))
            best = float(row["score"])
    return front
