"""Predictions of a run as a frame: one row per test image."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import InputError
from finetune.rundir.keys import PREDICTIONS, PROBABILITY
from finetune.system.tables import MAX_TABLE_BYTES, unescape_cell

TEXTS = ("path", "label", "prediction")
MAX_COLUMNS, MAX_HEADER_BYTES = 50_000, 8 * 2**20  # the largest data sets have 21,000 classes


def read_predictions(run_dir: Path) -> pd.DataFrame:
    """Return a run's predictions on test, one row per image, in the file's order.

    Returns:
        columns path, label, prediction (str), confidence (probability of the prediction, in [0, 1], NaN if unknown)
        and correct (bool).

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
    missing = [name for name in TEXTS if name not in table]
    if missing or table.empty:
        fault = f"has no column {', '.join(missing)}" if missing else "is empty"
        raise InputError(f"{path} {fault}; copy the run directory again, or run the run again.")
    predictions = table[list(TEXTS)].copy()
    predictions["confidence"] = _confidence(table)
    predictions["correct"] = predictions["label"] == predictions["prediction"]
    return predictions


def labelled(rows: Iterable[tuple[str, str, float]]) -> pd.DataFrame:
    """Return rows of `finetune.predict` in the form of `read_predictions`; an image's label is its folder's name.

    Args:
        rows: path, prediction, confidence.
    """
    predictions = pd.DataFrame(list(rows), columns=["path", "prediction", "confidence"])
    predictions.insert(1, "label", [Path(path).parent.name for path in predictions["path"]])
    predictions["correct"] = predictions["label"] == predictions["prediction"]
    return predictions


def _read(path: Path) -> pd.DataFrame:
    """Return the table as text: classes may be called NA or 007.

    Raises:
        OSError, ValueError: it is not a readable table.
    """
    check_size(path)
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    for name in TEXTS:
        if name in table:
            table[name] = table[name].map(unescape_cell)
    return table


def check_size(path: Path) -> None:
    """Raise ValueError if a table is larger than any run writes, as reading it could take all memory."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ValueError(f"it is larger than {MAX_TABLE_BYTES / 2**20:,.0f} MB, the limit")
    with path.open("rb") as file:
        columns = file.readline(MAX_HEADER_BYTES + 1)
    if len(columns) > MAX_HEADER_BYTES or columns.count(b",") > MAX_COLUMNS:
        raise ValueError(f"its first line names more than {MAX_COLUMNS:,} columns")


def _confidence(table: pd.DataFrame) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the probability of each row's prediction, shape (images,), in [0, 1]."""
    columns = [name for name in table if str(name).startswith(PROBABILITY)]
    position = {str(name).removeprefix(PROBABILITY): index for index, name in enumerate(columns)}
    chosen = table["prediction"].map(position)
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    confidence = np.full(len(table), np.nan)
    has_column = chosen.notna().to_numpy()
    confidence[has_column] = values[np.flatnonzero(has_column), chosen[has_column].astype(int).to_numpy()]
    return confidence


def read_probabilities(run_dir: Path) -> "tuple[np.ndarray[Any, np.dtype[np.float64]], list[str], list[str]]":
    """Return the probabilities, shape (images, classes) in [0, 1], the classes, and the images' labels.

    Raises:
        InputError: as `read_predictions`, or a probability is missing.
    """
    read_predictions(run_dir)  # raises the error message for an invalid file
    table = _read(run_dir / PREDICTIONS)
    columns = [str(name) for name in table if str(name).startswith(PROBABILITY)]
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not columns or np.isnan(values).any():
        raise InputError(f"{run_dir / PREDICTIONS} lacks probabilities, so confidences can't be judged.")
    return values, [name.removeprefix(PROBABILITY) for name in columns], table["label"].tolist()
