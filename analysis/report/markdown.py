"""comparison.md, and escaping for Markdown."""

import re
from dataclasses import astuple

import pandas as pd

from analysis.report.columns import Column, cells, comparison_columns, cost_columns, detail_columns, pair_columns
from analysis.tables.analysis import Analysis
from analysis.tables.claims import CheckedClaims
from finetune.system.output import one_line


def comparison_markdown(analysis: Analysis, headline: str) -> str:
    """Return comparison.md: the tables, with the headline and the caveats below the first."""
    comparison = analysis.comparison
    parts = [
        markdown_table(comparison.arms, comparison_columns()),
        "".join(f"- {markdown_text(sentence)}\n" for sentence in (headline, *analysis.notes)),
        "## More columns\n\n" + markdown_table(comparison.arms, detail_columns(comparison.target)),
        "## Costs\n\n" + markdown_table(comparison.arms, cost_columns()),
    ]
    if len(comparison.pairs):
        pairs = markdown_table(comparison.pairs, pair_columns())
        parts.append(f"## Pairwise comparisons (paired by test image)\n\n{pairs}")
    if analysis.claims.checked:
        parts.append("## Reference numbers\n\n" + claims_markdown(analysis.claims))
    return "\n".join(parts)


def claims_markdown(claims: CheckedClaims) -> str:
    """Return a Markdown table of claims and results, their source, and their setting if it is another one.

    The results of another setting neither confirm nor refute a claim, so there is no verdict then.
    """
    headings, sides = ["Claim", "Claimed", "Found here", "95% interval", "Verdict"], [":--", "--:", "--:", "--:", ":--"]
    rows = [headings, sides, *([markdown_text(text) for text in astuple(claim)] for claim in claims.checked)]
    table = _rows([row[:-1] for row in rows] if claims.setting else rows)
    return table + "".join(f"\n{markdown_text(text)}\n" for text in (f"From {claims.source}.", claims.setting) if text)


def markdown_table(table: pd.DataFrame, shown: list[Column]) -> str:
    """Return a Markdown table."""
    lines = [[column.heading for column in shown], ["--:" if column.number else ":--" for column in shown]]
    lines += [[markdown_text(cell) for cell in row] for row in cells(table, shown)]
    return _rows(lines)


def _rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Return Markdown that shows the text as it is, on one line and in one table cell."""
    text = one_line(" ".join(text.split()))
    for sign in "\\|`*_<>[]~#":
        text = text.replace(sign, f"\\{sign}")
    return text


def inline_code(value: object) -> str:
    """Return the value as inline code, between more backticks than it has in a row."""
    text = one_line(" ".join(str(value).split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
