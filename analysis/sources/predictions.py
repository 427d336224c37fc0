"""The tidy frame of predictions: one row a test image, of one run or of several."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import InputError
from finetune.rundir.keys import PREDICTIONS, PROBABILITY
from finetune.system.tables import MAX_TABLE_BYTES, unescape_cell

TEXTS = ("path", "label", "prediction")
MOST_COLUMNS, MOST_HEADER = 50_000, 8 * 2**20  # of the largest sets of classes there are 21,000; bytes of their names


def read_predictions(run_dir: Path) -> pd.DataFrame:
    """Return a run's answers on test, one row an image, in the file's order.

    Returns:
        columns path, label, prediction (text, whatever a class is called), confidence (the probability of the
        prediction, in [0, 1], NaN where it is unknown) and correct (bool).

    Raises:
        InputError: the file is missing or is not a table of predictions.
    """
    path = run_dir / PREDICTIONS
    try:
        table = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing, so there are no predictions of this run to show.") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise InputError(f"{path} is not a table of predictions: {error}") from error
    lacking = [name for name in TEXTS if name not in table]
    if lacking or table.empty:
        fault = f"has no column {', '.join(lacking)}" if lacking else "is empty"
        raise InputError(f"{path} {fault}; copy the run directory again, or run the run again.")
    answers = table[list(TEXTS)].copy()
    answers["confidence"] = _confidence(table)
    answers["correct"] = answers["label"] == answers["prediction"]
    return answers


def labelled(rows: Iterable[tuple[str, str, float]]) -> pd.DataFrame:
    """Return what `finetune.predict` says of images that lie in a folder of their class, as `read_predictions` would.

    Args:
        rows: path, prediction, confidence.
    """
    answers = pd.DataFrame(list(rows), columns=["path", "prediction", "confidence"])
    answers.insert(1, "label", [Path(path).parent.name for path in answers["path"]])
    answers["correct"] = answers["label"] == answers["prediction"]
    return answers


def _read(path: Path) -> pd.DataFrame:
    """Return the table as text: a class may be called NA or 007, and is.

    Raises:
        OSError, ValueError: it can't be read, or is none.
    """
    check_size(path)
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    for name in TEXTS:
        if name in table:
            table[name] = table[name].map(unescape_cell)
    return table


def check_size(path: Path) -> None:
    """Raise ValueError if a table has more bytes or columns than any run writes: reading it would take all memory."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"it is larger than the {MAX_TABLE_BYTES / 2**20:,.0f} MB that are read of it")
    with path.open("rb") as file:
        columns = file.readline(MOST_HEADER + 1)
    if len(columns) > MOST_HEADER or columns.count(b",") > MOST_COLUMNS:
        raise ValueError(f"its first line names more than {MOST_COLUMNS:,} columns")


def _confidence(table: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the probability that each row gives its prediction, (pictures,) in [0, 1]."""
    columns = [name for name in table if str(name).startswith(PROBABILITY)]
    position = {str(name).removeprefix(PROBABILITY): index for index, name in enumerate(columns)}
    chosen = table["prediction"].map(position)
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    confidence = np.full(len(table), np.nan)
    known = chosen.notna().to_numpy()
    confidence[known] = values[np.flatnonzero(known), chosen[known].astype(int).to_numpy()]
    return confidence


def read_probabilities(run_dir: Path) -> "tuple[np.ndarray[Any, np.dtype[np.float64]], list[str], list[str]]":
    """Return what a run gives every class: (pictures, classes) in [0, 1], the classes, and each picture's label.

    Raises:
        InputError: as `read_predictions`, or a probability is missing.
    """
    read_predictions(run_dir)  # says what is wrong with the file, if anything is
    table = _read(run_dir / PREDICTIONS)
    columns = [str(name) for name in table if str(name).startswith(PROBABILITY)]
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not columns or np.isnan(values).any():
        raise InputError(f"{run_dir / PREDICTIONS} lacks probabilities, so confidences can't be judged.")
    return values, [name.removeprefix(PROBABILITY) for name in columns], table["label"].tolist()
