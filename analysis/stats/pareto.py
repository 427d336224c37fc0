"""The Pareto front of cost and score."""

import numpy as np
import pandas as pd


def pareto_front(points: pd.DataFrame) -> list[str]:
    """Return the names on the Pareto front of low cost and high score, the cheapest first.

    Args:
        points: cost and score, indexed by name.
    """
    front: list[str] = []
    best = -np.inf
    for name, row in points.sort_values(["cost", "score"], ascending=[True, False], kind="stable").iterrows():
        if row["score"] > best:
            front.append(str(name))
            best = float(row["score"])
    return front
