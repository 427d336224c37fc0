"""Sweeps as people have them, too: without histories, without origins, with rates that look alike, with ties."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.figures.specs import FIGURES
from analysis.pipeline import analyze_sweep
from analysis.report.html import report_page
from analysis.report.json_document import json_document
from analysis.report.model_card import model_card
from analysis.sources.run_directories import read_sweep
from analysis.tables.analysis import Options
from analysis.tables.comparison import compare
from analysis.tables.recipes import distinguishing_labels
from analysis.tables.selection import choose_recipes
from analysis.tables.verdict import decide
from finetune.rundir import keys
from tests.support.fabricate import fabricate_run


@pytest.mark.usefixtures("without_drawing")
def test_runs_without_histories_are_compared(tmp_path: Path) -> None:
    """Only curves are missing, and a caveat says so."""
    for strategy in ("head", "full"):
        for seed in range(2):
            (
                fabricate_run(tmp_path / "runs", f"{strategy}-{seed}", strategy=strategy, seed=seed) / keys.HISTORY
            ).unlink()
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "history.jsonl lacks epochs of 4 runs" in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.usefixtures("blank_figures")
def test_figures_of_an_earlier_report_go_and_files_of_the_user_stay(tmp_path: Path) -> None:
    """By name: a figure that this report does not have would pass for one of its own."""
    out = tmp_path / "paper"
    (out / "figures").mkdir(parents=True)
    earlier = {"figures/accuracy_by_size.pdf", "figures/parallel_coordinates.png", "prediction_grid_attention.png"}
    own = {"figures/my_architecture.pdf", "figures/photo.png", "prediction_grid_of_mine.png"}
    for name in (*earlier, *own):
        (out / name).write_bytes(b"x")
    fabricate_run(tmp_path / "runs", "a")
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert own | {"figures/schedule.png"} <= names
    assert not earlier & names


def test_a_model_card_says_what_was_not_recorded(tmp_path: Path) -> None:
    """Runs that an earlier version made, or another program."""
    lacking = dict.fromkeys(("splits", "git_commit", "versions", "device", "data_fingerprint", "command"))
    fabricate_run(tmp_path / "runs", "a", provenance=lacking, summary={"temperature": 1.5, "train_gflops": None})
    text = model_card(analyze_sweep(read_sweep(tmp_path / "runs")))
    assert "80.0% of an unknown number of test images correct" in text
    assert "Commit `not recorded`, torch not recorded" in text
    assert not [word for word in ("None", "nan") if word in text]


def test_rates_that_differ_in_the_fourth_digit_have_names_of_their_own() -> None:
    """As a random search draws them; others keep three."""
    recipes = ['{"strategy": "head", "lr": 0.00123456}', '{"strategy": "head", "lr": 0.00123411}']
    assert list(distinguishing_labels(dict.fromkeys(recipes, "head")).values()) == ["lr 0.0012346", "lr 0.0012341"]
    assert list(
        distinguishing_labels(dict.fromkeys([*recipes[:1], '{"strategy": "head", "lr": 0.01}'], "head")).values()
    ) == [
        "lr 0.00123",
        "lr 0.01",
    ]


def test_a_tie_on_val_goes_to_the_lower_loss_in_any_order() -> None:
    """Three accuracies have one mean, whichever seed has which."""
    accuracies = (0.8284473398479912, 0.7713219, 0.9012345678)
    for order in itertools.permutations(accuracies):
        rows = [
            {
                "recipe": f'{{"lr": {lr}}}',
                "arm": "head",
                "strategy": "head",
                "seed": seed,
                "lr": lr,
                "best/val_accuracy": value,
                "best/val_loss": loss,
            }
            for lr, loss, values in ((0.1, 0.9, accuracies), (0.2, 0.4, order))
            for seed, value in enumerate(values)
        ]
        table, _ = choose_recipes(pd.DataFrame(rows))
        assert table.set_index("lr")["chosen"].to_dict() == {0.1: False, 0.2: True}


def test_filling_caches_does_not_make_an_arm_dearer(tmp_path: Path) -> None:
    """One run does that for all; and where no time is known, nothing is called cheaper."""
    many = {"provenance": {"splits": {"test": 100_000}}}
    for seed in range(3):
        cached, unknown = {"cache_seconds": 60.0}, {"train_seconds": None}
        fabricate_run(tmp_path / "a", f"p-{seed}", strategy="partial", seed=seed, seconds=100, summary=cached, **many)
        fabricate_run(tmp_path / "a", f"f-{seed}", strategy="full", seed=seed, seconds=80, val=0.81, **many)
        for strategy in ("partial", "full"):
            fabricate_run(tmp_path / "b", f"{strategy}-{seed}", strategy=strategy, seed=seed, summary=unknown, **many)
    timed, untimed = (decide(compare(read_sweep(tmp_path / name))) for name in "ab")
    assert (timed.candidate, timed.recommended) == ("full", "partial")
    assert untimed.recommended == untimed.candidate


def test_a_target_is_shown_as_it_was_given(tmp_path: Path) -> None:
    """92.5%, and not 92%."""
    fabricate_run(tmp_path / "runs", "a", curve=[0.5, 0.93])
    analysis = analyze_sweep(read_sweep(tmp_path / "runs"), Options(target=0.925))
    page = report_page(analysis, json_document(analysis), tmp_path / "out", [], [])
    figure = FIGURES["time_to_target"](analysis)
    assert figure is not None
    assert "reached 92.5% val accuracy" in figure.alt
    assert "Epochs to 92.5% val" in page
    assert "92% val" not in page + figure.alt + figure.caption
