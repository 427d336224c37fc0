"""What has not changed is not drawn again; what has, or is damaged, is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from analysis import drawn
from analysis.drawn import digest, is_drawn
from analysis.figures.style import new_figure, save
from analysis.pipeline import build_report
from analysis.sources.run_directories import read_sweep
from tests.support.fabricate import fabricate_run


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": [1.0, np.nan], "b": ["x", None], "c": [["k"], {"m": 1}]})


def test_equal_content_has_an_equal_digest_whatever_its_index() -> None:
    """A run that joins before another moves its index, and nothing that is drawn."""
    assert digest(frame(), [1, "a"], None) == digest(frame().set_axis([7, 3]), [1, "a"], None)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(a=[1.0, 2.0]),
        lambda table: table.assign(a=[1, 2]),
        lambda table: table.assign(b=["x", "None"]),
        lambda table: table.assign(c=[["k"], {"m": 2}]),
        lambda table: table.rename(columns={"a": "d"}),
        lambda table: table[["b", "a", "c"]],
        lambda table: table.iloc[::-1],
        lambda table: table.iloc[:1],
    ],
)
def test_every_difference_changes_it(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """A value, a type, a name, an order, a number of rows."""
    assert digest(change(frame())) != digest(frame())


def test_what_stands_beside_each_other_is_told_apart() -> None:
    """Where one value ends and the next begins counts; and so does the code that draws."""
    assert len({digest("ab", "c"), digest("a", "bc"), digest(["ab"], "c"), digest("abc"), digest(("ab", "c"))}) == 5
    assert digest(1) != digest(True) != digest("1") != digest(1.0)
    with pytest.raises(TypeError, match="mappingproxy"):
        digest(MappingProxyType({}))  # whose text would be told, but of other such things it is an address


def test_other_code_or_libraries_draw_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of matplotlib may draw the same data in another way."""
    before = digest(frame())
    drawn._code.cache_clear()
    monkeypatch.setattr(drawn, "version", lambda name: "99" if name == "matplotlib" else "1")
    assert digest(frame()) != before
    drawn._code.cache_clear()


def test_asking_for_the_settings_looks_for_no_window_system() -> None:
    """On a desktop matplotlib would load Tk or Qt for the answer; and two processes must give the same one."""
    code = (
        "import sys; from analysis.drawn import digest; print(digest(1)); assert 'matplotlib.pyplot' not in sys.modules"
    )
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)]
    assert told[0] == told[1] != b""


def test_a_damaged_picture_is_not_taken_for_drawn(tmp_path: Path) -> None:
    """Cut short, with a flipped bit, of other data, or not there."""
    key = digest(frame())
    written = save(new_figure(lambda ax: ax, 2), tmp_path / "figure", key)
    assert [is_drawn(path, key) for path in written] == [True, True]
    assert not any(is_drawn(path, digest("other")) for path in written)
    png, pdf = written
    content = png.read_bytes()
    for bad in (content[:-100], content[:900] + bytes([content[900] ^ 4]) + content[901:], b"", b"\x89PNG"):
        png.write_bytes(bad)
        assert not is_drawn(png, key)
    pdf.write_bytes(pdf.read_bytes()[:-30])
    assert not is_drawn(pdf, key)
    png.unlink()
    assert not is_drawn(png, key)


def times(out: Path) -> dict[str, int]:
    """Return when each picture of a report was written."""
    return {path.name: path.stat().st_mtime_ns for path in [*out.glob("figures/*"), *out.glob("*.png")]}


def test_one_more_run_draws_what_it_changes(tmp_path: Path) -> None:
    """A run whose recipe val did not choose is in the figures of all runs, and in no other; a chosen one is in most."""
    runs, out = tmp_path / "runs", tmp_path / "out"
    answers = [(f"{n}.png", "disc", "disc" if n % 3 else "ring", 0.8) for n in range(12)]
    for seed in range(2):
        for strategy, val in (("head", 0.6), ("full", 0.8)):
            fabricate_run(runs, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=val, predictions=answers)
    build_report(read_sweep(runs), out, 0.8)
    before = times(out)
    fabricate_run(runs, "a-worse", strategy="head", seed=0, val=0.3, lr=0.5)
    build_report(read_sweep(runs), out, 0.8)
    after = times(out)
    changed = {name for name in before if after[name] != before[name]}
    assert {"accuracy_against_time.png", "rate_by_strategy.pdf"} <= changed
    kept = {"learning_curves.png", "recall_by_class.png", "confusion_matrix.pdf", "schedule.pdf", "prediction_grid.png"}
    assert not kept & changed
    fabricate_run(runs, "full-2", strategy="full", seed=2, val=0.9)
    build_report(read_sweep(runs), out, 0.8)
    newest = times(out)
    assert all(newest[f"{name}.png"] != after[f"{name}.png"] for name in ("learning_curves", "accuracy_by_strategy"))
