"""The text and the blocks of a sweep's W&B report."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from analysis.pipeline import analyze_sweep
from analysis.report.columns import comparison_columns
from analysis.report.markdown import markdown_table
from analysis.report.methods import SYNTHETIC
from analysis.report.sentences import describe_verdict
from analysis.report.wandb.blocks import (
    EARLIER_NOTES_HINT,
    ReportInputs,
    library,
    notes_section,
    report_blocks,
    user_notes,
)
from analysis.report.wandb.text import (
    commands_text,
    methods_text,
    swept_fields,
)
from analysis.sources.run_directories import read_sweep
from analysis.tables.metadata import GENERAL_QUESTION, sweep_question
from finetune.tracking.sweep_address import SweepAddress
from tests.analysis.report.wandb.reported_sweep import SWEEP, make_sweep

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # raised by the import of wandb-workspaces


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """Return the inputs of the report of those runs."""
    tmp_path = tmp_path_factory.mktemp("inputs")
    make_sweep(tmp_path / "runs/demo", tmp_path / "images")
    analysis = analyze_sweep(read_sweep(tmp_path / "runs/demo"))
    return ReportInputs(
        analysis=analysis,
        sweep=SweepAddress("tester", "trials", "abcd1234"),
        url="https://w/tester/trials/sweeps/abcd1234",
        run="analysis-abcd1234",
        media=("prediction_grid", "figures/learning_curves"),
        chosen=tuple(analysis.chosen["run"]),
        best=("full-0.01-0",),
    )


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("description: |\n  Which\n  one?\nmethod: grid\n", "Which one?"),
        (SWEEP, "Does it *help* to train | more?"),
        ("# some.yaml with some parameters replaced\n# Question: which?\nmethod: grid\n", "Which?"),
        ("method: grid\n# Question: not at the top\n", GENERAL_QUESTION),
        ("# Question: unreadable YAML below?\n[", "Unreadable YAML below?"),
        (None, GENERAL_QUESTION),
    ],
)
def test_the_question_is_the_one_that_the_sweep_file_asks(text: str | None, question: str) -> None:
    """A description comes first, then the comment at the top, up to its first empty line."""
    assert sweep_question(text) == question


def test_the_fields_that_a_sweep_varies_are_axes_and_rates_are_logarithmic() -> None:
    """A field with one value in the sweep file, or in all runs, is no axis."""
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
    assert swept_fields(text, runs) == {"lr": True, "weight_decay": False, "unfreeze": False, "seed": False}
    assert swept_fields(None, runs) == {"strategy": False, "lr": True, "seed": False}


def test_methods_have_data_splits_seeds_and_selection(inputs: ReportInputs) -> None:
    """And what is unknown is left out."""
    words = "\n".join(methods_text(inputs.analysis))
    assert "3 classes, 300 training, 60 val and 100 test images" in words
    assert "Means are over 2 seeds." in words
    assert "selected on the validation set; each run was evaluated once on the test set" in words
    assert "Compute saved: FLOPs" in words
    assert "“*c*”" in words

    splits = {"train": None, "val": None, "test": None}
    unknown = {**inputs.analysis.data, "classes": [], "splits": splits, "chance": None, "majority_share": None}
    methods = methods_text(replace(inputs.analysis, data=unknown))
    assert methods[0] == f"Data: {unknown['name']}."
    assert not [sentence for sentence in methods if "without looking" in sentence]


def test_commands_reproduce_runs_comparison_and_report(inputs: ReportInputs) -> None:
    """The runs only where the sweep file is known; a command that a run recorded only if it trains."""
    commands = commands_text(inputs.analysis, "tester/trials/abcd1234")
    assert "make agents SWEEP=sweeps/again.yaml" in commands
    assert "make report SWEEP=tester/trials/abcd1234" in commands
    assert commands.endswith("python -m finetune --strategy full --lr 0.01 --seed 0")
    without = replace(inputs.analysis, sweep=replace(inputs.analysis.sweep, text=None))
    assert "make agents" not in commands_text(without, "tester/trials/abcd1234")


def test_each_strategy_is_a_runset_of_the_sweep_grouped_over_seeds(inputs: ReportInputs) -> None:
    """By its tag: the swept value of `strategy` need not be what a run resolved to."""
    curves = next(block for block in grids(inputs) if len(block.runsets) == 2)
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


def grids(inputs: ReportInputs) -> list[Any]:
    """Return the report's panel grids."""
    return [block for block in report_blocks(inputs) if isinstance(block, library().PanelGrid)]


def panel(inputs: ReportInputs, kind: str) -> tuple[Any, Any]:
    """Return the first panel of a kind, and the runset it looks at."""
    found = [(item, grid.runsets[0]) for grid in grids(inputs) for item in grid.panels if type(item).__name__ == kind]
    return found[0]


def test_test_accuracy_is_shown_of_the_chosen_recipes_only(inputs: ReportInputs) -> None:
    """Readers who see it for all recipes would select by it."""
    ids = "'head-0.01-0', 'head-0.01-1', 'full-0.01-0', 'full-0.01-1'"
    for kind in ("BarPlot", "ScatterPlot"):
        _, runset = panel(inputs, kind)
        assert sorted(ids.split(", ")) == sorted(runset.filters.split('Metric("ID") in [')[1].strip("]").split(", "))
        assert "Metric(\"Sweep\") == 'abcd1234'" in runset.filters
    shown, _ = panel(inputs, "ParallelCoordinatesPlot")
    assert [(column.metric.name, bool(column.log)) for column in shown.columns] == [
        ("strategy", False),
        ("lr", True),
        ("seed", False),
        ("best/val_accuracy", False),
    ]


def test_images_are_those_of_the_analysis_run_and_predictions_those_of_the_best(inputs: ReportInputs) -> None:
    """The analysis run is no run of the sweep."""
    browser, runset = panel(inputs, "MediaBrowser")
    assert browser.media_keys == ["prediction_grid"]
    assert runset.filters == "Metric(\"ID\") in ['analysis-abcd1234']"
    table, runset = panel(inputs, "WeavePanelSummaryTable")
    assert table.table_name == "test/predictions"
    assert "'full-0.01-0'" in runset.filters


def test_without_a_prediction_grid_there_is_no_panel_for_one(inputs: ReportInputs) -> None:
    """Nor for figures that are not there; runs that the server lacks are a caveat."""
    bare = replace(inputs, media=(), url="", missing="2 are missing.")
    kinds = [type(panel).__name__ for grid in grids(bare) for panel in grid.panels]
    assert "MediaBrowser" not in kinds
    listed = [block.items for block in report_blocks(bare) if isinstance(block, library().UnorderedList)]
    assert "2 are missing." in listed[0]


def test_without_varied_fields_there_are_no_axes(inputs: ReportInputs) -> None:
    """One strategy at one rate with one seed."""
    one = replace(inputs.analysis.sweep, runs=inputs.analysis.sweep.runs.head(1), text=None)
    bare = replace(inputs, analysis=replace(inputs.analysis, sweep=one))
    kinds = [type(panel).__name__ for grid in grids(bare) for panel in grid.panels]
    assert "ParallelCoordinatesPlot" not in kinds


def test_only_the_table_is_markup(inputs: ReportInputs) -> None:
    """Text from users is escaped in it, and stays as it is everywhere else."""
    wr, comparison = library(), inputs.analysis.comparison
    blocks = report_blocks(inputs)
    table = markdown_table(comparison.arms, comparison_columns())
    assert [block.text for block in blocks if isinstance(block, wr.MarkdownBlock)] == [table]
    assert [block.text for block in blocks if isinstance(block, wr.BlockQuote)] == ["Does it *help* to train | more?"]
    callout = next(block for block in blocks if isinstance(block, wr.CalloutBlock))
    headline = describe_verdict(comparison, inputs.analysis.verdict).headline
    assert callout.text == f"{SYNTHETIC} {headline}"


def test_readers_notes_stay_and_the_rest_is_replaced(inputs: ReportInputs) -> None:
    """Only what stands below the last heading for notes is the reader's."""
    wr = library()
    mine = [wr.MarkdownBlock("seen on *another* set"), wr.H2("More")]
    before = [*report_blocks(inputs), *notes_section([]), *mine]
    assert user_notes(before) == mine
    assert user_notes([*report_blocks(inputs), *notes_section(user_notes(before))]) == mine
    assert user_notes(report_blocks(inputs)) == []
    assert user_notes([wr.H2("Notes"), wr.P(EARLIER_NOTES_HINT), *mine]) == mine
