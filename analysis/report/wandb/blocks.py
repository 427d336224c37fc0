"""A comparison as the blocks of a W&B report: words, table, panels over the sweep's runs. Asks no server.

Names of strategies and ids alone go into filters; whatever users have named stands in blocks that know no markup, or
is escaped by `wording.markdown`.
"""

from dataclasses import dataclass
from typing import Any

from analysis.report.wandb import text
from analysis.sources.wandb.address import Address

CURVES = {"val/accuracy": "Val accuracy", "train/loss": "Train loss", "trainable_share": "Share of blocks that train"}
MOST_LINES = 100  # W&B draws the first 10 unless told otherwise
GRID, TABLE, FIGURES = "prediction_grid", "comparison", "figures/"  # what the analysis run logs, by key
PREDICTIONS = "test/predictions"  # what each finished run logs (see finetune/wandb_run.py)
NOTES = "Notes"
KEPT = "What is written below this line stays when the report is renewed; all above is replaced."
Block = Any  # wandb-workspaces has no public base class of its blocks


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from.

    Attributes:
        report: the content of report.json.
        table: the comparison as a Markdown table.
        question: what the sweep asks.
        swept: the fields it varies -> whether they want a logarithmic axis.
        sweep: where its runs are on the server; url: of its page there, or "".
        run: the id of the W&B run that holds pictures and table.
        media: the keys of its pictures.
        chosen: the ids of the W&B runs of the chosen recipes; best: of the run that the predictions are of.
        commands: that make all of it again.
        file: the sweep file, or None.
        missing: a sentence on the runs that the server has not got, or "".
    """

    report: dict[str, Any]
    table: str
    question: str
    swept: dict[str, bool]
    sweep: Address
    url: str
    run: str
    media: tuple[str, ...]
    chosen: tuple[str, ...]
    best: tuple[str, ...]
    commands: str
    file: str | None
    missing: str = ""


def library() -> Any:
    """Return wandb-workspaces' module of reports, whose import takes a second; it does not tell its types."""
    import wandb_workspaces.reports.v2

    return wandb_workspaces.reports.v2


def blocks(told: ReportInputs) -> list[Block]:
    """Return the report's blocks: the answer first, then what it rests on."""
    return [*_answer(told), *_comparison(told), *_curves(told), *_settings(told), *_pictures(told), *_again(told)]


def notes_section(kept: list[Block]) -> list[Block]:
    """Return the place for readers' own notes, with those that are there already."""
    wr = library()
    return [wr.H2(NOTES), wr.P(KEPT), *kept]


def user_notes(old: list[Block]) -> list[Block]:
    """Return what people have written into an earlier report's place for notes."""
    wr = library()
    places = [index for index, block in enumerate(old) if block in (wr.H1(NOTES), wr.H2(NOTES), wr.H3(NOTES))]
    below = old[places[-1] + 1 :] if places else []
    return [block for block in below if block != wr.P(KEPT)]


def _answer(told: ReportInputs) -> list[Block]:
    wr = library()
    answer, notes = told.report["answer"], [*told.report["notes"], *filter(None, [told.missing])]
    synthetic = "Synthetic data: the pictures are drawn by the program, not photographs. "
    said = [
        wr.BlockQuote(told.question),
        wr.CalloutBlock((synthetic if told.report["data"]["synthetic"] else "") + answer["headline"]),
        *(wr.P(sentence) for sentence in answer["sentences"]),
    ]
    return said + ([wr.H3("To be kept in mind"), wr.UnorderedList(items=notes)] if notes else [])


def _comparison(told: ReportInputs) -> list[Block]:
    wr = library()
    return [
        wr.H2("Comparison"),
        wr.MarkdownBlock(told.table),
        wr.H2("How it was measured"),
        wr.UnorderedList(items=text.measured_text(told.report)),
    ]


def _curves(told: ReportInputs) -> list[Block]:
    from wandb_workspaces import expr

    wr = library()
    strategies = [str(row["strategy"]) for row in told.report["strategies"]]
    one = told.report["repeated_over"]
    panels = [
        wr.LinePlot(
            title=title,
            x="epoch",
            y=[key],
            title_x="epoch",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=MOST_LINES,
            layout=wr.Layout(x=8 * index, y=0, w=8, h=8),
        )
        for index, (key, title) in enumerate(CURVES.items())
    ]
    # Runs are tagged with the strategy they resolved to, which need not be the one the sweep gave them.
    runsets = [_runset(told, strategy, [expr.Tags().isin([strategy])], groupby=["group"]) for strategy in strategies]
    return [
        wr.H2("Learning curves"),
        wr.P(
            f"One line a recipe: the mean over its {one}s, the band from the worst to the best {one}. "
            "Each strategy is a tab of the table below the panels, to be shown or hidden there."
        ),
        wr.PanelGrid(runsets=runsets, panels=panels),
    ]


def _settings(told: ReportInputs) -> list[Block]:
    wr = library()
    axes = [wr.ParallelCoordinatesPlotColumn(wr.Config(name), log=log or None) for name, log in told.swept.items()]
    goal = wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric("best/val_accuracy"), display_name="val accuracy")
    settings = wr.ParallelCoordinatesPlot(
        title="Settings and val accuracy", columns=[*axes, goal], layout=wr.Layout(x=0, y=0, w=24, h=10)
    )
    cost = wr.ScatterPlot(
        title="Test accuracy against training seconds",
        x=wr.SummaryMetric("train_seconds"),
        y=wr.SummaryMetric("test/accuracy"),
        layout=wr.Layout(x=0, y=0, w=12, h=9),
    )
    bars = wr.BarPlot(
        title=f"Test accuracy: mean over {told.report['repeated_over']}s, from the worst to the best",
        metrics=["test/accuracy"],
        groupby="Group",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=MOST_LINES,
        max_bars_to_show=MOST_LINES,
        layout=wr.Layout(x=12, y=0, w=12, h=9),
    )
    chosen = _runset(told, "recipes that val chose", [_among(told.chosen)], groupby=["group"])
    tried = [
        wr.H2("What was tried"),
        wr.P("One line a run, through the values that it was given, to its val accuracy."),
        wr.PanelGrid(runsets=[_runset(told, "all runs", [])], panels=[settings]),
    ]
    return [
        *(tried if axes else []),
        wr.H2("What the chosen recipes cost, and reach on test"),
        wr.P(
            "Only the recipes that val chose: test must not choose among the others. "
            f"A point or bar is a recipe, the mean over its {told.report['repeated_over']}s."
        ),
        wr.PanelGrid(runsets=[chosen], panels=[cost, bars]),
    ]


def _pictures(told: ReportInputs) -> list[Block]:
    wr = library()
    there = _runset(told, "comparison", [_among((told.run,))], of_sweep=False)
    best = f"Run {told.report['best_run']}: of the chosen recipes' runs it has the highest val accuracy."
    figures = [key for key in told.media if key.startswith(FIGURES)]
    shown: list[Block] = [wr.H2("Predictions of the best run"), wr.P(best)]
    if GRID in told.media:
        grid = wr.MediaBrowser(
            title="Test pictures by class, right and wrong",
            media_keys=[GRID],
            num_columns=1,
            layout=wr.Layout(x=0, y=0, w=24, h=24),
        )
        shown.append(wr.PanelGrid(runsets=[there], panels=[grid], hide_run_sets=True))
    table = wr.WeavePanelSummaryTable(table_name=PREDICTIONS, layout=wr.Layout(x=0, y=0, w=24, h=16))
    of_best = _runset(told, "best run", [_among(told.best)])
    shown.append(wr.PanelGrid(runsets=[of_best], panels=[table], hide_run_sets=True))
    if figures:
        browser = wr.MediaBrowser(
            title="What the analysis drew", media_keys=figures, num_columns=2, layout=wr.Layout(x=0, y=0, w=24, h=24)
        )
        about = wr.P("The run below has them, with comparison.csv, report.json and report.html, which opens offline.")
        shown += [wr.H2("Figures"), about, wr.PanelGrid(runsets=[there], panels=[browser])]
    return shown


def _again(told: ReportInputs) -> list[Block]:
    wr = library()
    link = [wr.P(["The sweep: ", wr.Link(str(told.sweep), url=told.url)])] if told.url else []
    file = [wr.H3("The sweep file"), wr.CodeBlock(told.file, language="yaml")] if told.file else []
    return [wr.H2("To make it again"), *link, wr.CodeBlock(told.commands, language="python"), *file]


def _among(ids: tuple[str, ...]) -> Any:
    """Return the filter for these W&B runs."""
    from wandb_workspaces import expr

    return expr.Metric("ID").isin(list(ids))


def _runset(
    told: ReportInputs,
    name: str,
    filters: list[Any],
    groupby: list[str] | None = None,
    of_sweep: bool = True,
) -> Any:
    """Return the sweep's training runs that pass all filters, or, not `of_sweep`, those of the report's project.

    A runset that names no project is of the report's own; naming it costs two requests a runset, and a login here.
    """
    from wandb_workspaces import expr

    wr = library()
    of_it = [expr.Metric("Sweep") == told.sweep.sweep, expr.Metric("JobType") == "train"] if of_sweep else []
    return wr.Runset(
        name=name,
        filters=expr.And(*of_it, *filters),
        groupby=groupby or [],
    )
