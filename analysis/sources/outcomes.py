"""The correctness matrix: which run classified which test image correctly."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import InputError
from analysis.sources.predictions import read_predictions
from analysis.sources.test_sets import DATA
from analysis.stats.crossed import CorrectnessMatrix


def read_outcomes(runs: pd.DataFrame) -> tuple[CorrectnessMatrix, list[str]]:
    """Read the predictions of these runs; return their outcomes, and a sentence for each run that has none.

    Args:
        runs: rows of the frame of runs.
    """
    columns: dict[str, Any] = {}
    faults = []
    for _, run in runs.iterrows():
        try:
            answers = read_predictions(Path(run["path"]))
        except InputError as error:
            faults.append(str(error))
            continue
        names = f"{run.get(DATA)}:" + answers["path"]
        columns[str(run["run"])] = pd.Series(answers["correct"].to_numpy(float), index=names).groupby(level=0).first()
    table = pd.DataFrame(columns).sort_index().sort_index(axis=1)
    right = table.to_numpy(dtype=float).T.reshape(len(table.columns), len(table))
    return CorrectnessMatrix(tuple(map(str, table.columns)), tuple(map(str, table.index)), right), faults
