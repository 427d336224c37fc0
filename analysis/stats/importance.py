"""What val accuracy depends on: how much worse a forest guesses it when it may not know a setting.

W&B ranks settings by a forest, too, but on the runs that it was grown on, and without saying how much of that is
chance. Here each run is guessed by a forest that has not seen it, and the seed, nothing but chance, is a setting, too.
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import in_order

RUNS_NEEDED = 12  # fewer tell a forest nothing
TREES, PARTS, SHUFFLES = 100, 5, 8
CHANCE = ("seed", "fold")
MOST = 8  # settings that a figure can show


def varied_fields(runs: pd.DataFrame, chance: bool = False) -> list[str]:
    """Return the fields that the sweep varied; one that follows from those before it is left out.

    Args:
        runs: finished runs.
        chance: whether seed and fold are among them.
    """
    fields = [json.loads(recipe) for recipe in runs["recipe"]]
    every = {name for field in fields for name in field} - {"weights"}
    order = [name for name in ("strategy", "lr", "unfreeze", "backbone_lr") if name in every]
    told: list[str] = []
    for name in [*order, *sorted(every - set(order))]:
        if _count_distinct(fields, [*told, name]) > _count_distinct(fields, told):
            told.append(name)
    varied = [name for name in CHANCE if name in runs and runs[name].nunique() > 1] if chance else []
    return [*told[:MOST], *varied]


def _count_distinct(fields: list[dict[str, Any]], names: list[str]) -> int:
    return len({json.dumps([field.get(name) for name in names]) for field in fields})


def values(runs: pd.DataFrame, name: str) -> "pd.Series[Any]":
    """Return a field of the runs as plain values: numbers where all are, else text."""
    if name in CHANCE:
        return runs[name].fillna(-1.0)
    told = pd.Series([json.loads(recipe).get(name) for recipe in runs["recipe"]], index=runs.index, dtype=object)
    if told.map(lambda value: isinstance(value, int | float) and not isinstance(value, bool)).all():
        return told.astype(float)
    return told.map(lambda value: "none" if value is None else value if isinstance(value, str) else json.dumps(value))


def importance(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
    """Return field, points (by which the mean error of the guess grows, a fraction of val accuracy), low and high.

    Each run is guessed by a forest grown on the others (in PARTS parts), once as it is and once with a field's values
    shuffled among the runs of its part (Breiman, "Random Forests", 2001, section 10; on runs left out). low and high
    are the 5% and 95% quantiles over shuffles.

    Returns:
        the most important field first; None where runs or settings are too few.
    """
    fields = varied_fields(runs, chance=True)
    runs = runs.sort_values("run")
    score = runs["best/val_accuracy"].to_numpy(float)
    if len(runs) < RUNS_NEEDED or len(fields) < 2 or np.ptp(score) == 0:
        return None
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import

    inputs = np.column_stack([_encoded(values(runs, name)) for name in fields])
    part = rng.permutation(len(runs)) % PARTS
    grown = np.zeros((SHUFFLES, len(fields)))
    for number in range(PARTS):
        mine = part == number
        forest = RandomForestRegressor(TREES, random_state=int(rng.integers(2**31)))
        forest.fit(inputs[~mine], score[~mine])
        shuffled = [inputs[mine]]
        for _ in range(SHUFFLES):
            for column in range(len(fields)):
                other = inputs[mine].copy()
                other[:, column] = rng.permutation(other[:, column])
                shuffled.append(other)
        guesses = forest.predict(np.concatenate(shuffled)).reshape(len(shuffled), -1)
        errors = np.abs(guesses - score[mine]).sum(axis=1)
        grown += (errors[1:] - errors[0]).reshape(SHUFFLES, len(fields))
    grown /= len(runs)
    low, high = np.quantile(grown, [0.05, 0.95], axis=0)
    table = pd.DataFrame({"field": fields, "points": grown.mean(axis=0), "low": low, "high": high})
    return table.sort_values("points", ascending=False, kind="stable", ignore_index=True)


def _encoded(told: "pd.Series[Any]") -> Any:
    """Return a field as numbers; of texts, which have no order, the number in ours."""
    if told.dtype == float:
        return told.to_numpy()
    places = {name: index for index, name in enumerate(in_order(told))}
    return told.map(places).to_numpy(float)
