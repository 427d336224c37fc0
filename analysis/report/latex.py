"""comparison.tex: the comparison as a table for a paper (needs the package booktabs)."""

from analysis.report.columns import Column, cells, comparison_columns
from analysis.tables.comparison import Comparison
from analysis.tables.recipes import replicate_kind
from finetune.system.output import one_line

SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # at the start of a row, they would be arguments of the \\ before it
    **{"±": r"$\pm$", "–": "--", "×": r"$\times$", "…": r"\dots{}"},
}


def latex_table(comparison: Comparison, headline: str) -> str:
    """Return the table as LaTeX, with the headline in its caption; all text is escaped."""
    shown = comparison_columns()
    rows = [_row(texts) for texts in cells(comparison.arms, shown)]
    kind = replicate_kind(comparison.recipes["over"])
    caption = escape_latex(
        f"{headline} Test accuracy, mean over {kind}s with 95% interval, and its difference to the arm with the "
        "highest val accuracy (in points; * significant at 5% after Holm's correction). Recipes were selected on the "
        "validation set."
    )
    return "\n".join(
        [
            "% \\usepackage{booktabs}",
            "\\begin{table}",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{''.join(map(_alignment, shown))}}}",
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


def escape_latex(text: str) -> str:
    """Return LaTeX that prints the text as it is, on one line."""
    return "".join(SPECIAL.get(sign, sign) for sign in one_line(" ".join(text.split())))


def _row(texts: list[str]) -> str:
    return " & ".join(map(escape_latex, texts)) + r" \\"


def _alignment(column: Column) -> str:
    return "r" if column.number else "l"
