"""The correctness matrix: which run classified which test image correctly."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import InputError
from analysis.sources.predictions import read_predictions
from analysis.sources.test_sets import DATA
from analysis.stats.crossed import CorrectnessMatrix


def read_correctness(runs: pd.DataFrame) -> tuple[CorrectnessMatrix, list[str]]:
    """Return the correctness matrix of these runs, and a sentence for each run whose predictions can't be read.

    Args:
        runs: rows of `Sweep.runs`.
    """
    columns: dict[str, Any] = {}
    faults = []
    for _, run in runs.iterrows():
        try:
            predictions = read_predictions(Path(run["path"]))
        except InputError as error:
            faults.append(str(error))
            continue
        images = f"{run.get(DATA)}:" + predictions["path"]
        of_run = pd.Series(predictions["correct"].to_numpy(float), index=images)
        columns[str(run["run"])] = of_run.groupby(level=0).first()
    table = pd.DataFrame(columns).sort_index().sort_index(axis=1)
    correct = table.to_numpy(dtype=float).T.reshape(len(table.columns), len(table))
    return CorrectnessMatrix(tuple(map(str, table.columns)), tuple(map(str, table.index)), correct), faults
