"""Permutation importance: how much worse a random forest predicts a run's score when one setting is shuffled.

W&B ranks settings by a forest, too, but on the runs that it was fitted to, and without an estimate of chance. Here each
run is predicted by a forest that was not fitted to it, and seed and fold are settings, too, as a reference for chance.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MIN_RUNS = 12  # fewer are too few to fit a forest
TREES, PARTS, SHUFFLES = 100, 5, 8


def permutation_importance(
    settings: pd.DataFrame, scores: NDArray[np.float64], rng: np.random.Generator
) -> pd.DataFrame | None:
    """Return field, points (growth of the mean absolute error, in units of the score), low and high.

    Cross-validated in PARTS parts; a field is shuffled among the runs of a part (Breiman, "Random Forests", 2001,
    section 10; on held-out runs). low and high are the 5% and 95% quantiles over SHUFFLES shuffles.

    Args:
        settings: (runs, fields), numbers.
        scores: (runs,).

    Returns:
        the most important field first; None with too few runs or settings, or with equal scores.
    """
    runs, fields = settings.shape
    if runs < MIN_RUNS or fields < 2 or np.ptp(scores) == 0:
        return None
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import

    inputs = settings.to_numpy(float)
    part_of_run = rng.permutation(runs) % PARTS
    growth = np.zeros((SHUFFLES, fields))
    for part in range(PARTS):
        held_out = part_of_run == part
        forest = RandomForestRegressor(TREES, random_state=int(rng.integers(2**31)))
        forest.fit(inputs[~held_out], scores[~held_out])
        variants = [inputs[held_out]]
        for _ in range(SHUFFLES):
            for column in range(fields):
                shuffled = inputs[held_out].copy()
                shuffled[:, column] = rng.permutation(shuffled[:, column])
                variants.append(shuffled)
        predictions = forest.predict(np.concatenate(variants)).reshape(len(variants), -1)
        errors = np.abs(predictions - scores[held_out]).sum(axis=1)
        growth += (errors[1:] - errors[0]).reshape(SHUFFLES, fields)
    growth /= runs
    low, high = np.quantile(growth, [0.05, 0.95], axis=0)
    table = pd.DataFrame({"field": list(settings), "points": growth.mean(axis=0), "low": low, "high": high})
    return table.sort_values("points", ascending=False, kind="stable", ignore_index=True)
