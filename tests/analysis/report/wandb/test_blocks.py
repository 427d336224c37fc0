"""The W&B report of a sweep: its words and its blocks."""

import json
from typing import Any

import pandas as pd
import pytest

from analysis.pipeline import build_report
from analysis.report import (columns, markdown)
from analysis.report.wandb import text
from analysis.report.wandb.blocks import (ReportInputs, blocks, library, notes_section, user_notes)
from analysis.sources.run_directories import read_sweep
from analysis.sources.wandb.address import Address
from tests.analysis.report.wandb.reported_sweep import (SWEEP, make_sweep)

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # wandb-workspaces says it of itself, when loaded


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """Return what the report of those runs is made from."""
    tmp_path = tmp_path_factory.mktemp("told")
    make_sweep(tmp_path / "runs/demo", tmp_path / "pictures")
    sweep = read_sweep(tmp_path / "runs/demo")
    comparison, _ = build_report(sweep, tmp_path / "out", 0.8)
    return ReportInputs(
        report=json.loads((tmp_path / "out/report.json").read_text()),
        table=markdown.markdown_table(comparison.strategies, columns.columns(0.8)),
        question=text.question(sweep.text),
        swept=text.swept(sweep.text, sweep.finished),
        sweep=Address("tester", "trials", "abcd1234"),
        url="https://w/tester/trials/sweeps/abcd1234",
        run="analysis-abcd1234",
        media=("prediction_grid", "figures/learning_curves"),
        chosen=tuple(comparison.chosen_runs(sweep, comparison)["run"]),
        best=("full-0.01-0",),
        commands="make it",
        file=sweep.text,
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("description: |\n  Which\n  one?\nmethod: grid\n", "Which one?"),
        (SWEEP, "Does it *help* to train | more?"),
        ("# some.yaml with some parameters replaced\n# Question: which?\nmethod: grid\n", "Which?"),
        ("method: grid\n# Question: not at the top\n", text.GENERAL),
        ("# Question: unreadable YAML below?\n[", "Unreadable YAML below?"),
        (None, text.GENERAL),
    ],
)
def test_the_question_is_the_one_that_the_sweep_file_asks(text: str | None, asked: str) -> None:
    """A description comes first, then the comment at the top, up to its first empty line."""
    assert text.question(text) == asked


def test_the_fields_that_a_sweep_varies_are_axes_and_rates_are_logarithmic() -> None:
    """What one value is given for, or what all runs agree in, is no axis."""
    runs = pd.DataFrame(
        {
            "lr": [0.001, 0.01],
            "weight_decay": [0.02, 0.03],
            "unfreeze": [[[0, 0.0]], [[0, 1.0]]],
            "strategy": ["head", "full"],
            "epochs": [4, 4],
            "backbone_lr": [0.0002, 0.002],
            "seed": [1, 5],
        }
    )
    text = """\
parameters:
  lr: {values: [0.001, 0.01]}
  weight_decay: {distribution: uniform, min: 0, max: 1}
  unfreeze: {values: [[[0, 0]], [[0, 1]]]}
  epochs: {values: [4, 8]}
  strategy: {value: head}
  seed: {values: [1, 5]}
  elsewhere: {values: [1, 2]}
"""
    assert text.swept(text, runs) == {"lr": True, "weight_decay": False, "unfreeze": False, "seed": False}
    assert text.swept(None, runs) == {"strategy": False, "lr": True, "seed": False}


def test_how_it_was_measured_is_told_from_the_report(told: ReportInputs) -> None:
    """Data, splits, seeds, and what val and test are for."""
    words = "\n".join(text.measured_text(told.report))
    assert "3 classes, 300 training, 60 val and 100 test pictures" in words
    assert "A recipe's mean is over 2 seeds." in words
    assert "Val chooses, test is read once" in words
    assert "counted in FLOPs" in words
    assert "“*c*”" in words

    splits = {"train": None, "val": None, "test": None}
    unknown = {**told.report["data"], "classes": [], "splits": splits, "chance": None, "majority_share": None}
    assert text.measured_text({**told.report, "data": unknown})[0] == "Data: demo (synthetic pictures)."


def test_each_strategy_is_a_runset_of_the_sweep_grouped_over_seeds(told: ReportInputs) -> None:
    """By its tag: the swept value of `strategy` need not be what a run resolved to."""
    curves = next(block for block in grids(told) if len(block.runsets) == 2)
    assert [runset.name for runset in curves.runsets] == ["head", "full"]
    for runset in curves.runsets:
        of_sweep = "Metric(\"Sweep\") == 'abcd1234' and Metric(\"JobType\") == 'train'"
        assert runset.filters == f"{of_sweep} and Metric(\"Tags\") in ['{runset.name}']"
        assert runset.groupby == ["group"]
    assert [(panel.x, panel.y) for panel in curves.panels] == [
        ("epoch", ["val/accuracy"]),
        ("epoch", ["train/loss"]),
        ("epoch", ["trainable_share"]),
    ]


def grids(told: ReportInputs) -> list[Any]:
    """Return the report's panel grids."""
    return [block for block in blocks(told) if isinstance(block, library().PanelGrid)]


def panel(told: ReportInputs, kind: str) -> tuple[Any, Any]:
    """Return the first panel of a kind, and the runset it looks at."""
    found = [(one, grid.runsets[0]) for grid in grids(told) for one in grid.panels if type(one).__name__ == kind]
    return found[0]


def test_test_accuracy_is_shown_of_the_chosen_recipes_only(told: ReportInputs) -> None:
    """Who sees it of all of them chooses by it."""
    ids = "'head-0.01-0', 'head-0.01-1', 'full-0.01-0', 'full-0.01-1'"
    for kind in ("BarPlot", "ScatterPlot"):
        _, runset = panel(told, kind)
        assert sorted(ids.split(", ")) == sorted(runset.filters.split('Metric("ID") in [')[1].strip("]").split(", "))
        assert "Metric(\"Sweep\") == 'abcd1234'" in runset.filters
    shown, _ = panel(told, "ParallelCoordinatesPlot")
    assert [(column.metric.name, bool(column.log)) for column in shown.columns] == [
        ("strategy", False),
        ("lr", True),
        ("seed", False),
        ("best/val_accuracy", False),
    ]


def test_pictures_are_those_of_the_analysis_run_and_predictions_those_of_the_best(told: ReportInputs) -> None:
    """The analysis run is no run of the sweep."""
    browser, runset = panel(told, "MediaBrowser")
    assert browser.media_keys == ["prediction_grid"]
    assert runset.filters == "Metric(\"ID\") in ['analysis-abcd1234']"
    table, runset = panel(told, "WeavePanelSummaryTable")
    assert table.table_name == "test/predictions"
    assert "'full-0.01-0'" in runset.filters


def test_without_a_prediction_grid_there_is_no_panel_for_one(told: ReportInputs) -> None:
    """Nor for figures that are not there, nor an axis where nothing was swept."""
    bare = ReportInputs(
        **{**vars(told), "media": (), "swept": {}, "url": "", "file": None, "missing": "2 are missing."}
    )
    kinds = [type(one).__name__ for grid in grids(bare) for one in grid.panels]
    assert "MediaBrowser" not in kinds
    assert "ParallelCoordinatesPlot" not in kinds
    listed = [block.items for block in blocks(bare) if isinstance(block, library().UnorderedList)]
    assert "2 are missing." in listed[0]


def test_only_the_table_is_markup(told: ReportInputs) -> None:
    """What users have named stands in it escaped, and everywhere else as it is."""
    wr = library()
    made = blocks(told)
    assert [block.text for block in made if isinstance(block, wr.MarkdownBlock)] == [told.table]
    assert [block.text for block in made if isinstance(block, wr.BlockQuote)] == ["Does it *help* to train | more?"]
    callout = next(block for block in made if isinstance(block, wr.CalloutBlock))
    assert callout.text.startswith("Synthetic data")
    assert callout.text.endswith(told.report["answer"]["headline"])


def test_readers_notes_stay_and_the_rest_is_replaced(told: ReportInputs) -> None:
    """Only what stands below the last heading for notes is the reader's."""
    wr = library()
    mine = [wr.MarkdownBlock("seen on *another* set"), wr.H2("More")]
    before = [*blocks(told), *notes_section([]), *mine]
    assert user_notes(before) == mine
    assert user_notes([*blocks(told), *notes_section(user_notes(before))]) == mine
    assert user_notes(blocks(told)) == []
