"""A sweep of twelve run directories with everything in it that happens to sweeps, and what must be said of it.

partial wins: 90 of 100 test images. gradual and full are a tie: 80 each, of which 70 are the same. One run of head
has a torn line in its history, one has failed; scratch was run on other images.
"""

import json
import shutil
from math import comb
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from analysis.__main__ import main
from analysis.sources.run_directories import read_sweep
from analysis.tables.comparison import compare
from tests.support.fabricate import fabricate_run, tear_history

WRONG = {"partial": range(10), "gradual": range(20), "full": [*range(10), *range(20, 30)], "head": range(45)}


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Return the folder of the twelve runs."""
    folder = tmp_path / "runs" / "golden"
    for strategy, missed in WRONG.items():
        answers = [(f"test/{n}.png", "disc", "square" if n in missed else "disc", 0.9) for n in range(100)]
        for seed in range(1 if strategy == "head" else 3):
            test = 1 - len(missed) / 100
            run_dir = fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=test, test=test, predictions=answers
            )
            if strategy == "head":
                tear_history(run_dir)
    fabricate_run(folder, "head-1", seed=1, state="failed", reason="DivergedError: the loss is nan at step 3")
    fabricate_run(folder, "scratch-0", strategy="scratch", provenance={"data_fingerprint": "bbbb"})
    assert len(list(folder.iterdir())) == 12
    return folder


def test_runs_on_other_pictures_are_refused_by_name(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is written."""
    out = golden.parents[1] / "report"
    assert main([str(golden), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "scratch-0" in said
    assert "--mix-data" in said
    assert not out.exists()


@pytest.mark.usefixtures("blank_figures")
def test_the_winner_the_tie_and_what_is_left_out(golden: Path) -> None:
    """Everything that can be worked out on paper, from report.json and the CSV files."""
    shutil.rmtree(golden / "scratch-0")
    out = golden.parents[1] / "report"
    assert main([str(golden), "--out", str(out)]) == 0
    told = json.loads((out / "report.json").read_text())
    assert told["answer"]["verdict"] == "distinguishable"
    assert told["answer"]["best"] == "partial"
    assert told["answer"]["level"] == ["partial"]
    assert told["answer"]["headline"] == "Use partial: 90.0% on test (3 seeds), significantly better than all 2 others."
    differences = {other["arm"]: other["difference"] for other in told["verdict"]["differences"]}
    assert differences == pytest.approx({"head": -0.35, "gradual": -0.1, "full": -0.1})
    assert told["best_run"].startswith("partial-")
    assert told["runs"] == {"finished": 10, "left_out": 1}
    assert told["left_out"] == [
        {"run": "head-1", "state": "failed", "reason": "DivergedError: the loss is nan at step 3"}
    ]
    assert any("head-0: 1 torn line" in note for note in told["notes"])

    table = pd.read_csv(out / "comparison.csv").set_index("strategy")
    assert table["test_accuracy_mean"].to_dict() == pytest.approx(
        {"head": 0.55, "partial": 0.9, "gradual": 0.8, "full": 0.8}
    )
    assert table["n"].to_dict() == {"head": 1, "partial": 3, "gradual": 3, "full": 3}
    for low, high in zip(table["test_accuracy_low"], table["test_accuracy_high"], strict=True):
        assert 0 < low < high < 1
    assert table["interval"].to_dict() == {"head": "Wilson"} | dict.fromkeys(("partial", "gradual", "full"), "crossed")

    pairs = pd.read_csv(out / "pairs.csv").set_index(["strategy", "other"])
    tie = pairs.loc["gradual", "full"]
    assert tie["difference"] == pytest.approx(0)
    assert (tie["only_one"], tie["only_other"]) == (10, 10)
    assert tie["mcnemar_p"] == pytest.approx(1 - comb(20, 10) / 2**20 / 2)
    assert tie["p"] > 0.9
    assert pd.isna(tie["p_holm"])  # of the comparisons with the winner only
    won = pairs.loc["partial", "gradual"]
    assert (won["only_one"], won["only_other"]) == (10, 0)
    assert won["mcnemar_p"] == pytest.approx(1 / 2**10)
    assert won["p_holm"] < 0.05


def test_other_pictures_on_request_are_said(golden: Path) -> None:
    """The run counts then, and a note says that its test is another one."""
    sweep = read_sweep(golden, mix_data=True)
    assert len(sweep.finished) == 11
    assert sweep.notes[0].startswith("Mixed (--mix-data): the runs were tested on different images")
    assert "scratch-0" in sweep.notes[0]


def test_what_is_said_does_not_depend_on_how_runs_are_called(golden: Path) -> None:
    """Other names, and so another order of reading: the same tables, intervals and p-values, to the digit."""
    shutil.rmtree(golden / "scratch-0")
    before = compare(read_sweep(golden))
    for place, run_dir in enumerate(sorted(golden.iterdir())):
        run_dir.rename(golden / f"{100 - place}")
    after = compare(read_sweep(golden))
    assert_frame_equal(before.recipes, after.recipes)
    assert_frame_equal(before.pairs, after.pairs)
