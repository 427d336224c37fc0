"""Bars outside of runs: on a terminal, and nowhere else."""

import pytest

from finetune.system.progress_bar import progress_bar


def test_a_log_gets_no_bar_even_where_colours_are_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook's kernel sets FORCE_COLOR, which rich takes for a terminal: a bar would leave a line at each step."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar("looking") as show:
        show(1, 2)
    assert capsys.readouterr() == ("", "")
