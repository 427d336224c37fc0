"""comparison.tex: the comparison as a table for a paper (needs the package booktabs)."""

from pathlib import Path

from analysis.report.columns import Column, cells, columns
from analysis.tables.comparison import Comparison
from analysis.tables.replicates import replicate_kind
from finetune.system.atomic import write_atomic
from finetune.system.output import one_line

SHOWN = (
    "Strategy",
    "Recipe",
    "Test",
    "Spread",
    "95% interval",
    "Seeds",
    "Val",
    "Macro-F1",
    "Train time",
    "Compute saved",
)
SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # behind the end of a row they would belong to it
    **{"±": r"$\pm$", "–": "--", "×": r"$\times$", "…": r"\dots{}"},
}


def write_latex(path: Path, comparison: Comparison, headline: str) -> None:
    """Write the table with its caption."""
    write_atomic(path, latex_table(comparison, headline))


def latex_table(comparison: Comparison, headline: str) -> str:
    """Return the table as LaTeX; every text from outside is escaped."""
    shown = [column for column in columns(comparison.target) if column.heading in SHOWN]
    rows = [_row(cells_of_row) for cells_of_row in cells(comparison.strategies, shown)]
    one = replicate_kind(comparison.recipes["over"])
    caption = escaped(f"{headline} Accuracies on test, mean over {one}s with 95% intervals; val chose the recipes.")
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{''.join(map(_side, shown))}}}",
            "\\toprule",
            _row([column.heading for column in shown]),
            "\\midrule",
            *rows,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it is, on one line."""
    return "".join(SPECIAL.get(sign, sign) for sign in one_line(" ".join(text.split())))


def _row(texts: list[str]) -> str:
    return " & ".join(map(escaped, texts)) + r" \\"


def _side(column: Column) -> str:
    return "r" if column.number else "l"
