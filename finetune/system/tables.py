"""CSV files, for people with a spreadsheet and for programs: no cell is a formula, all texts come back as they were."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finetune.errors import CorruptFileError
from finetune.system.atomic import replacing

MAX_TABLE_BYTES = 2**30  # bytes that are read of one file, far more than any run writes

# What a spreadsheet takes for a formula, if a cell begins with it (OWASP, "CSV Injection"), and what is a number.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_cell(value: Any) -> Any:
    """Return what is written into a cell of a CSV file for people: a text that a spreadsheet would run begins with '.

    `text_of` takes that away again. Numbers, also as text, stay as they are.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescape_cell(written: str) -> str:
    """Return the text that `cell` was given; what others wrote is mostly the same in both."""
    return written[1:] if written.startswith("'") and _FORMULA.match(written) else written


def write_table(path: Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, wholly or not at all; no cell of it is a formula (see `cell`)."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(escape_cell, columns))
        writer.writerows(map(escape_cell, row) for row in rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that `write_table` wrote, each column -> text as it was before it was made a cell.

    Raises:
        OSError: it can't be read.
        CorruptFileError: it is no such file (see `read_cells`), or has rows of another length.
    """
    rows = read_cells(path)
    _, header = next(rows, (0, []))
    columns = [unescape_cell(name) for name in header]
    try:
        return [dict(zip(columns, map(unescape_cell, cells), strict=True)) for _, cells in rows]
    except ValueError as error:
        raise CorruptFileError(f"{path} is damaged: it is no table ({error})") from error


def read_cells(path: Path, delimiters: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the cells of each row of a CSV file, as they are written; no blank lines.

    Args:
        delimiters: the one that comes most often in the first line separates the cells.

    Raises:
        OSError: it can't be read.
        CorruptFileError: it is no table: of another encoding, or with a cell that does not end.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise CorruptFileError(f"{path} is larger than the {MAX_TABLE_BYTES / 2**20:,.0f} MB that are read of it")
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a byte order mark
        try:
            delimiter = max(delimiters, key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except (csv.Error, ValueError) as error:  # a cell of more than 131,072 characters, say
            raise CorruptFileError(f"{path} is damaged: it is no table ({error})") from error
