"""How a report is made: sources -> tables -> figures -> report."""

from functools import partial
from pathlib import Path

from analysis.errors import InputError
from analysis.figures.specs import FIGURES, GRIDS
from analysis.figures.style import GRID_DPI, arm_order, save_figure
from analysis.report.csv_files import write_tables
from analysis.report.gradcam import draw_gradcam
from analysis.report.html import EmbeddedImage, embed_image, report_page
from analysis.report.json_document import json_document, json_text
from analysis.report.latex import latex_table
from analysis.report.markdown import comparison_markdown
from analysis.report.model_card import model_card
from analysis.report.sentences import describe_verdict
from analysis.sources.parallel import RunJobs, run_serially
from analysis.sources.predictions import read_predictions
from analysis.sources.sweep import Sweep
from analysis.tables.analysis import DEFAULTS, Analysis, Options
from analysis.tables.arms import find_arm_fields, with_arms
from analysis.tables.claims import check_claims, read_claims
from analysis.tables.comparison import best_run, chosen_runs, compare
from analysis.tables.data_size import compare_data_sizes, split_by_train_share
from analysis.tables.metadata import data_facts, left_out_sentence
from analysis.tables.verdict import decide
from finetune.system.atomic import delete_stale_temporaries, raising_write_error, write_atomic

RETIRED = ("accuracy_against_parameters", "parallel_coordinates")  # figures that only earlier versions drew


def build_report(
    sweep: Sweep,
    out: Path,
    options: Options = DEFAULTS,
    with_attention: bool = False,
    run_jobs: RunJobs = run_serially,
) -> Analysis:
    """Analyse a sweep and write its report into the folder `out`.

    Args:
        with_attention: whether the best run draws attention maps first, which needs its images.
        run_jobs: runs the jobs that write tables and figures (see sources/parallel.py).
    """
    analysis = analyze_sweep(sweep, options)
    if with_attention:
        analysis = analysis.with_notes(filter(None, [draw_gradcam(analysis.best_dir)]))
    _prepare_folders(out)
    figures, grids = _write_tables_and_figures(analysis, out, run_jobs)
    analysis = analysis.with_notes(note for grid in grids for note in grid.notes)
    _write_texts(analysis, out, figures, grids)
    _remove_stale_figures(out, {image.name for image in (*figures, *grids)})
    return analysis


def analyze_sweep(sweep: Sweep, options: Options = DEFAULTS) -> Analysis:
    """Return all results of a sweep; nothing is drawn or written.

    Raises:
        InputError: `options` name a field that does not exist.
    """
    largest, smaller = split_by_train_share(sweep)
    fields = find_arm_fields(largest.finished["recipe"].unique(), options.by, options.tuned)
    largest, smaller = with_arms(largest, fields), [with_arms(part, fields) for part in smaller]
    comparison = compare(largest, options.target, fields)
    best = best_run(largest, comparison)
    notes = [*filter(None, [left_out_sentence(largest)]), *comparison.notes, *largest.notes]
    try:
        predictions = read_predictions(Path(best["path"]))
    except InputError as error:
        predictions = None
        notes.append(str(error))
    try:
        document = read_claims(sweep.text)
    except InputError as error:
        document = None
        notes.append(str(error))
    claims = check_claims(document, comparison, chosen_runs(largest, comparison), largest.epochs)
    return Analysis(
        all_runs=sweep,
        sweep=largest,
        comparison=comparison,
        verdict=decide(comparison, options.margin),
        best=best,
        predictions=predictions,
        data=data_facts(largest, predictions),
        claims=claims,
        sizes=compare_data_sizes(smaller, largest, comparison, options.margin),
        notes=tuple(notes),
        options=options,
    )


def _prepare_folders(out: Path) -> None:
    """Create the folders of the report, and delete temporary files that killed processes have left there."""
    with raising_write_error(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "figures"):
        delete_stale_temporaries(folder)


def _write_tables_and_figures(
    analysis: Analysis, out: Path, run_jobs: RunJobs
) -> tuple[list[EmbeddedImage], list[EmbeddedImage]]:
    """Write CSV files, figures and prediction grids, in parallel; return the figures and the grids."""
    images = run_jobs(
        [
            partial(write_tables, analysis, out),  # takes longest, so it starts first
            *(partial(_write_figure, name, analysis, out / "figures") for name in FIGURES),
            *(partial(_write_grid, name, analysis, out) for name in GRIDS),
        ]
    )[1:]
    drawn = [image for image in images if image is not None]
    return [image for image in drawn if image.name in FIGURES], [image for image in drawn if image.name in GRIDS]


def _write_figure(name: str, analysis: Analysis, folder: Path) -> EmbeddedImage | None:
    """Write a figure as PNG and PDF; return it for the page, or None if it has nothing to show."""
    spec = FIGURES[name](analysis)
    if spec is None:
        return None
    with arm_order(analysis.comparison.arms["arm"]):
        png, _ = save_figure(spec.draw(), folder / name)
    return embed_image(png, spec)


def _write_grid(name: str, analysis: Analysis, folder: Path) -> EmbeddedImage | None:
    """Write a prediction grid as PNG; return it for the page, or None if it has nothing to show."""
    spec = GRIDS[name](analysis)
    if spec is None:
        return None
    (png,) = save_figure(spec.draw(), folder / name, ("png",), GRID_DPI)
    return embed_image(png, spec, as_jpeg=True)


def _write_texts(analysis: Analysis, out: Path, figures: list[EmbeddedImage], grids: list[EmbeddedImage]) -> None:
    """Write the files that people and programs read; the page last, so that it never shows less than the others."""
    document = json_document(analysis)
    headline = describe_verdict(analysis.comparison, analysis.verdict).headline
    with arm_order(analysis.comparison.arms["arm"]):
        page = report_page(analysis, document, out, figures, grids)
    texts = {
        "comparison.tex": latex_table(analysis.comparison, headline),
        "comparison.md": comparison_markdown(analysis, headline),
        "model_card.md": model_card(analysis),
        "report.json": json_text(document),
        "report.html": page,
    }
    for name, text in texts.items():
        write_atomic(out / name, text)


def _remove_stale_figures(out: Path, drawn: set[str]) -> None:
    """Delete the figures of an earlier report that this one does not have; other files in its folder stay."""
    stale = {name for name in (*FIGURES, *GRIDS, *RETIRED) if name not in drawn}
    for name in stale:
        folder = out if name in GRIDS else out / "figures"
        for suffix in (".png", ".pdf"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
