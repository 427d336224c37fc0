"""The blocks of a W&B report: text, table, and panels over the sweep's runs. No requests to a server.

Filters contain only ids and names of strategies. Text from users is in blocks that know no markup, or escaped by
`markdown_text`.
"""

from dataclasses import dataclass
from typing import Any

from analysis.report.columns import comparison_columns
from analysis.report.markdown import markdown_table
from analysis.report.methods import SYNTHETIC, best_run_sentence
from analysis.report.sentences import describe_verdict
from analysis.report.wandb import text
from analysis.tables.analysis import Analysis
from analysis.tables.metadata import sweep_question
from finetune.tracking.sweep_address import SweepAddress

CURVES = {"val/accuracy": "Val accuracy", "train/loss": "Train loss", "trainable_share": "Share of blocks that train"}
MAX_LINES = 100  # W&B draws only 10 by default
GRID, TABLE, FIGURES = "prediction_grid", "comparison", "figures/"  # keys that the analysis run logs
PREDICTIONS = "test/predictions"  # what each finished run logs (see finetune/tracking)
NOTES = "Notes"
NOTES_HINT = "What is written below this line stays when the report is updated; everything above is replaced."
# Reports of earlier versions have this line instead.
EARLIER_NOTES_HINT = "What is written below this line stays when the report is renewed; all above is replaced."
Block = Any  # wandb-workspaces has no public base class of its blocks


@dataclass(frozen=True)
class ReportInputs:
    """What a W&B report is made from.

    Attributes:
        sweep: the address of the runs on the server.
        url: of the sweep's page there, or "".
        run: the id of the W&B run that holds images and table.
        media: the keys of its images.
        chosen: the ids of the W&B runs of the chosen recipes.
        best: the ids of the W&B run that the predictions are of.
        missing: a sentence on finished runs that are not on the server, or "".
    """

    analysis: Analysis
    sweep: SweepAddress
    url: str
    run: str
    media: tuple[str, ...]
    chosen: tuple[str, ...]
    best: tuple[str, ...]
    missing: str = ""


def library() -> Any:
    """Return wandb-workspaces' module of reports, which has no types; its import takes a second."""
    import wandb_workspaces.reports.v2

    return wandb_workspaces.reports.v2


def report_blocks(inputs: ReportInputs) -> list[Block]:
    """Return the blocks of the report, the verdict first."""
    return [
        *_verdict(inputs),
        *_comparison(inputs),
        *_curves(inputs),
        *_settings(inputs),
        *_costs(inputs),
        *_predictions(inputs),
        *_figures(inputs),
        *_reproduction(inputs),
    ]


def notes_section(notes: list[Block]) -> list[Block]:
    """Return the section for readers' own notes, with the notes that are there already."""
    wr = library()
    return [wr.H2(NOTES), wr.P(NOTES_HINT), *notes]


def user_notes(blocks: list[Block]) -> list[Block]:
    """Return what people have written into the notes section of an earlier report."""
    wr = library()
    headings = [index for index, block in enumerate(blocks) if block in (wr.H1(NOTES), wr.H2(NOTES), wr.H3(NOTES))]
    below = blocks[headings[-1] + 1 :] if headings else []
    return [block for block in below if block not in (wr.P(NOTES_HINT), wr.P(EARLIER_NOTES_HINT))]


def _verdict(inputs: ReportInputs) -> list[Block]:
    wr, analysis = library(), inputs.analysis
    verdict = describe_verdict(analysis.comparison, analysis.verdict)
    notes = [*analysis.notes, *filter(None, [inputs.missing])]
    synthetic = f"{SYNTHETIC} " if analysis.data["synthetic"] else ""
    blocks = [
        wr.BlockQuote(sweep_question(analysis.sweep.text)),
        wr.CalloutBlock(synthetic + verdict.headline),
        *(wr.P(sentence) for sentence in verdict.sentences),
    ]
    return blocks + ([wr.H3("Caveats"), wr.UnorderedList(items=notes)] if notes else [])


def _comparison(inputs: ReportInputs) -> list[Block]:
    wr, comparison = library(), inputs.analysis.comparison
    return [
        wr.H2("Comparison"),
        wr.MarkdownBlock(markdown_table(comparison.arms, comparison_columns())),
        wr.H2("Methods"),
        wr.UnorderedList(items=text.methods_text(inputs.analysis)),
    ]


def _curves(inputs: ReportInputs) -> list[Block]:
    from wandb_workspaces import expr

    wr, kind = library(), inputs.analysis.replicate
    panels = [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[key],
            title_x="epoch",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=MAX_LINES,
            layout=wr.Layout(x=8 * index, y=0, w=8, h=8),
        )
        for index, (key, title) in enumerate(CURVES.items())
    ]
    # Runs are tagged with the strategy they resolved to, which may differ from the sweep's value of `strategy`.
    runsets = [
        _runset(inputs, strategy, [expr.Tags().isin([strategy])], groupby=["group"])
        for strategy in map(str, inputs.analysis.comparison.arms["arm"])
    ]
    return [
        wr.H2("Learning curves"),
        wr.P(
            f"One line per recipe: the mean over its {kind}s; the band goes from the worst to the best {kind}. "
            "Show or hide a strategy with its tab in the table below the panels."
        ),
        wr.PanelGrid(runsets=runsets, panels=panels),
    ]


def _settings(inputs: ReportInputs) -> list[Block]:
    """Return parallel coordinates of all runs, if the sweep varied anything."""
    wr, sweep = library(), inputs.analysis.sweep
    fields = text.swept_fields(sweep.text, sweep.finished)
    if not fields:
        return []
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(name), log=log or None) for name, log in fields.items()]
    accuracy = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric("best/val_accuracy"), display_name="val accuracy")
    panel = wr.ParallelCoordinatesPlot(
        title="Settings and val accuracy", columns=[*axes, accuracy], layout=wr.Layout(x=0, y=0, w=24, h=10)
    )
    return [
        wr.H2("Settings"),
        wr.P("One line per run, through its settings to its val accuracy."),
        wr.PanelGrid(runsets=[_runset(inputs, "all runs", [])], panels=[panel]),
    ]


def _costs(inputs: ReportInputs) -> list[Block]:
    wr, kind = library(), inputs.analysis.replicate
    cost = wr.ScatterPlot(
        title="Test accuracy against training seconds",
        x=wr.SummaryMetric("train_seconds"),
        y=wr.SummaryMetric("test/accuracy"),
        layout=wr.Layout(x=0, y=0, w=12, h=9),
    )
    bars = wr.BarPlot(
        title=f"Test accuracy: mean over {kind}s, from the worst to the best",
        metrics=["test/accuracy"],
        groupby="Group",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=MAX_LINES,
        max_bars_to_show=MAX_LINES,
        layout=wr.Layout(x=12, y=0, w=12, h=9),
    )
    chosen = _runset(inputs, "chosen recipes", [_has_id(inputs.chosen)], groupby=["group"])
    return [
        wr.H2("Test accuracy and cost of the chosen recipes"),
        wr.P(
            "Only the recipes that were selected on the validation set: test accuracy must not influence the "
            f"selection. A point or bar is a recipe, the mean over its {kind}s."
        ),
        wr.PanelGrid(runsets=[chosen], panels=[cost, bars]),
    ]


def _predictions(inputs: ReportInputs) -> list[Block]:
    wr = library()
    blocks: list[Block] = [wr.H2("Predictions of the best run"), wr.P(best_run_sentence(inputs.analysis))]
    if GRID in inputs.media:
        grid = wr.MediaBrowser(
            title="Test images by class",
            media_keys=[GRID],
            num_columns=1,
            layout=wr.Layout(x=0, y=0, w=24, h=24),
        )
        blocks.append(wr.PanelGrid(runsets=[_analysis_runset(inputs)], panels=[grid], hide_run_sets=True))
    table = wr.WeavePanelSummaryTable(table_name=PREDICTIONS, layout=wr.Layout(x=0, y=0, w=24, h=16))
    best = _runset(inputs, "best run", [_has_id(inputs.best)])
    return [*blocks, wr.PanelGrid(runsets=[best], panels=[table], hide_run_sets=True)]


def _figures(inputs: ReportInputs) -> list[Block]:
    wr, keys = library(), [key for key in inputs.media if key.startswith(FIGURES)]
    if not keys:
        return []
    browser = wr.MediaBrowser(
        title="Figures of the analysis", media_keys=keys, num_columns=2, layout=wr.Layout(x=0, y=0, w=24, h=24)
    )
    return [
        wr.H2("Figures"),
        wr.P("The run below has them, with comparison.csv, report.json and report.html, which opens offline."),
        wr.PanelGrid(runsets=[_analysis_runset(inputs)], panels=[browser]),
    ]


def _reproduction(inputs: ReportInputs) -> list[Block]:
    wr, file = library(), inputs.analysis.sweep.text
    commands = text.commands_text(inputs.analysis, str(inputs.sweep))
    return [
        wr.H2("Reproduce this report"),
        *([wr.P(["The sweep: ", wr.Link(str(inputs.sweep), url=inputs.url)])] if inputs.url else []),
        wr.CodeBlock(commands, language="python"),
        *([wr.H3("The sweep file"), wr.CodeBlock(file, language="yaml")] if file else []),
    ]


def _has_id(ids: tuple[str, ...]) -> Any:
    """Return the filter for the W&B runs with these ids."""
    from wandb_workspaces import expr

    return expr.Metric("ID").isin(list(ids))


def _runset(inputs: ReportInputs, name: str, filters: list[Any], groupby: list[str] | None = None) -> Any:
    """Return the sweep's training runs that pass all filters."""
    from wandb_workspaces import expr

    of_sweep = [expr.Metric("Sweep") == inputs.sweep.id, expr.Metric("JobType") == "train"]
    return _project_runset(name, [*of_sweep, *filters], groupby)


def _analysis_runset(inputs: ReportInputs) -> Any:
    """Return the W&B run that holds the report's images and table, which is no run of the sweep."""
    return _project_runset("comparison", [_has_id((inputs.run,))])


def _project_runset(name: str, filters: list[Any], groupby: list[str] | None = None) -> Any:
    """Return the runs of the report's own project that pass all filters.

    The project is not named: naming it would cost two requests per runset, and need a login here.
    """
    from wandb_workspaces import expr

    return library().Runset(name=name, filters=expr.And(*filters), groupby=groupby or [])
