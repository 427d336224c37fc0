"""CSV files for spreadsheets and programs: no cell is a formula, and every text is read back unchanged."""

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from finetune.errors import CorruptFileError
from finetune.system.atomic import replacing

MAX_TABLE_BYTES = 2**30  # of one file, far more than any run writes

# A cell that begins like this is a formula to a spreadsheet (OWASP, "CSV Injection"), unless it is a number.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_cell(value: Any) -> Any:
    """Return a cell's content, with a leading ' where a spreadsheet would take the text for a formula.

    `unescape_cell` removes the '. Numbers, also as text, stay as they are.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unescape_cell(written: str) -> str:
    """Return the text that `escape_cell` received; text written by other programs rarely changes."""
    return written[1:] if written.startswith("'") and _FORMULA.match(written) else written


def write_table(path: Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, atomically and without formulas (see `escape_cell`)."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(escape_cell, columns))
        writer.writerows(map(escape_cell, row) for row in rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that `write_table` wrote, each as column -> unescaped text.

    Raises:
        OSError: it can't be read.
        CorruptFileError: the file is no table (see `read_cells`), or its rows differ in length.
    """
    rows = read_cells(path)
    _, header = next(rows, (0, []))
    columns = [unescape_cell(name) for name in header]
    try:
        return [dict(zip(columns, map(unescape_cell, cells), strict=True)) for _, cells in rows]
    except ValueError as error:
        raise CorruptFileError(f"{path} is damaged: it is no table ({error})") from error


def read_cells(path: Path, delimiters: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file that is not blank: the number of its last line, and its cells as they are written.

    It is UTF-8, with or without a byte order mark, or UTF-16 with one.

    Args:
        delimiters: the most frequent one of these in the first line separates the cells.

    Raises:
        OSError: the file can't be read.
        CorruptFileError: the file is no table, for example has another encoding, or a cell that does not end.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise CorruptFileError(f"{path} is larger than the limit of {MAX_TABLE_BYTES / 2**20:,.0f} MB")
    with path.open("rb") as binary:  # spreadsheets write a byte order mark
        encoding = "utf-16" if binary.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    with path.open(newline="", encoding=encoding) as file:
        try:
            delimiter = max(delimiters, key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except (csv.Error, ValueError) as error:  # such as a cell of more than 131,072 characters
            raise CorruptFileError(f"{path} is damaged: it is no table ({error})") from error
