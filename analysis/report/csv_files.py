"""Rows of the tables as plain values, and as CSV files."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables.schema import COLUMNS, plain_value
from finetune.system.atomic import replacing
from finetune.system.tables import escape_cell, write_table

COUNTS = (
    "runs",
    "recipes",
    "n",
    "seeds",
    "test_pictures",
    "seeds_reaching_target",
    "trainable_parameters",
    "total_parameters",
)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return COLUMNS of each row as plain values, counts whole, None where there is nothing to tell."""
    rows = [
        {name: plain_value(value) for name, value in row.items()} for row in table[list(COLUMNS)].to_dict("records")
    ]
    return [
        {str(name): round(value) if name in COUNTS and value is not None else value for name, value in row.items()}
        for row in rows
    ]


def pair_records(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return PAIRS of each row as plain values, None where there is nothing to tell."""
    return [{str(name): plain_value(value) for name, value in row.items()} for row in pairs.to_dict("records")]


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write COLUMNS with raw fractions and seconds; an empty cell where there is nothing to tell."""
    write_table(path, list(COLUMNS), [list(row.values()) for row in records(table)])


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a tidy frame as CSV: every column as it is, empty where there is nothing to tell, no formulas."""
    table = frame.drop(columns="recipe", errors="ignore")
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].map(escape_cell)
    table.columns = pd.Index([escape_cell(name) for name in table.columns])
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
