"""comparison.md, and text that Markdown shows as it is."""

import re
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.report.columns import Column, cells, columns, cost_columns, pair_columns
from finetune.system.atomic import write_atomic
from finetune.system.output import one_line

if TYPE_CHECKING:
    from analysis.tables.claims import Claim
    from analysis.tables.comparison import Comparison


def write_markdown(path: Path, comparison: "Comparison", claims: "list[Claim]", notes: list[str]) -> None:
    """Write the tables as people read them, with per cent, and the notes below the first."""
    parts = [
        markdown_table(comparison.strategies, columns(comparison.target)),
        "".join(f"- {markdown_text(note)}\n" for note in notes),
        "## Costs\n\n" + markdown_table(comparison.strategies, cost_columns()),
    ]
    if len(comparison.pairs):
        parts.append("## Two by two, on the same test pictures\n\n" + markdown_table(comparison.pairs, pair_columns()))
    parts.append("## Claims\n\n" + claims_markdown(claims))
    write_atomic(path, "\n".join(parts))


def claims_markdown(claims: "list[Claim]") -> str:
    """Return the claims beside what was found, as a Markdown table."""
    lines = [["Claim", "Claimed", "Found here", "95% interval", ""], [":--", "--:", "--:", "--:", ":--"]]
    lines += [[markdown_text(text) for text in astuple(claim)] for claim in claims]
    return _rows(lines)


def markdown_table(table: pd.DataFrame, shown: list[Column]) -> str:
    """Return a Markdown table."""
    lines = [[column.heading for column in shown], ["--:" if column.number else ":--" for column in shown]]
    lines += [[markdown_text(cell) for cell in row] for row in cells(table, shown)]
    return _rows(lines)


def _rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Keep a name on its line and in its cell, and from being read as markup."""
    text = one_line(" ".join(text.split()))
    for sign in "\\|`*_<>[]~#":
        text = text.replace(sign, f"\\{sign}")
    return text


def inline_code(value: object) -> str:
    """Return a text as code in Markdown: between more backticks than it has in a row."""
    text = one_line(" ".join(str(value).split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
