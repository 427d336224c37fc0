"""The CSV files of a report, and the rows of its tables as plain values."""

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables.analysis import Analysis
from analysis.tables.pairwise import PAIRS
from analysis.tables.schema import COLUMNS, plain_value
from finetune.system.atomic import replacing
from finetune.system.tables import escape_cell, write_table

# Columns with test results of a run or a recipe begin so.
TEST_COLUMNS = ("test/", "test_accuracy", "macro_f1", "balanced_accuracy", "lowest_recall")
COUNTS = (
    *("runs", "recipes", "n", "seeds", "test_pictures", "seeds_reaching_target"),
    *("trainable_parameters", "total_parameters"),
)


def write_tables(analysis: Analysis, out: Path) -> None:
    """Write every table of the report as CSV into the folder `out`."""
    comparison = analysis.comparison
    write_records(out / "comparison.csv", COLUMNS, records(comparison.arms))
    write_records(out / "recipes.csv", COLUMNS, records(without_test(comparison.recipes, analysis)))
    write_records(out / "pairs.csv", PAIRS, pair_records(comparison.pairs))
    runs = analysis.all_runs.runs
    _write_frame(
        out / "runs.csv", without_test(runs.assign(chosen=runs["recipe"].isin(_chosen_keys(analysis))), analysis)
    )
    _write_frame(out / "epochs.csv", analysis.all_runs.epochs)


def _chosen_keys(analysis: Analysis) -> set[str]:
    """Return the recipes that val chose, on every training-set size."""
    tables = [analysis.comparison, *(size.comparison for size in analysis.sizes)]
    return {str(key) for comparison in tables for key in comparison.arms["key"]}


def without_test(table: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Return the table without test results of recipes that val did not choose, unless they were asked for."""
    if analysis.options.all_test:
        return table
    hidden = [name for name in table if str(name).startswith(TEST_COLUMNS)]
    table = table.astype(dict.fromkeys(hidden, object))
    table.loc[~table["chosen"].astype(bool), hidden] = None
    return table


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return COLUMNS of each row as plain values: counts as int, None for missing values."""
    rows = _plain_rows(table[list(COLUMNS)])
    return [
        {name: round(value) if name in COUNTS and value is not None else value for name, value in row.items()}
        for row in rows
    ]


def pair_records(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return PAIRS of each row as plain values, None for missing values."""
    return _plain_rows(pairs[list(PAIRS)])


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): plain_value(value) for name, value in row.items()} for row in table.to_dict("records")]


def write_records(path: Path, columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """Write fractions and seconds as they are, and an empty cell for a missing value."""
    write_table(path, list(columns), [[row[name] for name in columns] for row in rows])


def _write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a tidy frame: all columns, an empty cell for a missing value, no text that a spreadsheet would execute."""
    table = frame.drop(columns="recipe", errors="ignore")
    for name in table.select_dtypes(exclude="number"):
        table[name] = table[name].map(escape_cell)
    table.columns = pd.Index([escape_cell(name) for name in table.columns])
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
