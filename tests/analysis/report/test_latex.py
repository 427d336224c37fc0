"""comparison.tex: a table that LaTeX sets as it is, whatever things are called."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from analysis.report.latex import escape_latex, latex_table
from analysis.tables.comparison import compare
from tests.support.fabricate import fabricate_run, read_arms


def test_the_table_has_a_row_a_strategy_and_as_many_cells_as_columns(tmp_path: Path) -> None:
    """Between booktabs' rules, with the headline as its caption."""
    for strategy in ("head", "full"):
        for seed in range(3):
            fabricate_run(tmp_path, f"{strategy}-{seed}", strategy=strategy, seed=seed, test=0.8)
    text = latex_table(compare(read_arms(tmp_path)), "Use head & co: 80% of $5")
    assert r"\caption{Use head \& co: 80\% of \$5 " in text
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns is not None
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [row.split(" & ")[0] for row in rows] == ["Arm", "head", "full"]
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns[1])}
    assert r"80.0\%" in rows[1]


@given(st.text())
def test_no_name_is_a_command(name: str) -> None:
    """Every character that LaTeX would act on is escaped."""
    bare = re.sub(
        r"\{[\[\]*]\}|\\(textbackslash|textasciitilde|textasciicircum|dots)\{\}|\$\\(pm|times)\$|\\[&%$#_{}]",
        "",
        escape_latex(name),
    )
    assert not set(bare) & set("\\&%$#_{}~^")
