"""Everything a reader gets, in the order it is made: tables, answer, figures, grids, report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import figures
from analysis.drawn import digest, is_drawn, is_ours
from analysis.errors import InputError
from analysis.figures import grid_specs, style
from analysis.figures.specs import FigureSpec, LazyFigure, plans
from analysis.report import csv_files, html, json_document, markdown, model_card
from analysis.report.latex import write_latex
from analysis.report.sentences import budget_options, data_size_record, describe_verdict, recommendation_facts
from analysis.report.shell import command_for, recorded
from analysis.sources.parallel import RunJobs, one_by_one
from analysis.sources.predictions import read_predictions
from analysis.sources.sweep import Sweep
from analysis.tables import comparison
from analysis.tables.claims import check_claims
from analysis.tables.comparison import Comparison, best_run, chosen_runs, compare
from analysis.tables.data_size import compare_data_sizes, split_by_train_share
from analysis.tables.metadata import data_facts, left_out_sentence
from analysis.tables.pairwise import PAIRS
from analysis.tables.verdict import decide
from finetune.system.atomic import delete_stale_temporaries, raising_write_error
from finetune.system.tables import write_table


def build_report(
    sweep: Sweep,
    out: Path,
    target: float,
    do: RunJobs = one_by_one,
    seed: int = comparison.SEED,
    look: Callable[[Path], str | None] = lambda run_dir: None,  # noqa: ARG005
) -> tuple[Comparison, list[str]]:
    """Write everything there is to say of a sweep into `out`.

    Args:
        target: val accuracy to time the way to.
        do: does what is to be drawn and written, and returns what comes of it (see parallel.py).
        seed: of all that is drawn at random.
        look: has the best run draw where it looked, and returns why it can't (see gradcam.py).

    Returns:
        the comparison, and the sentences that belong to it, the answer first.
    """
    rng = np.random.default_rng(seed)
    everything = sweep
    sweep, parts = split_by_train_share(sweep)
    comparison = compare(sweep, target, rng)
    result = decide(comparison)
    best = best_run(sweep, comparison)
    notes = [*([said] if (said := left_out_sentence(sweep)) else []), *comparison.notes, *sweep.notes]
    try:
        predictions = read_predictions(Path(best["path"]))
    except InputError as error:
        predictions = None
        notes.append(str(error))
    if (why := look(Path(best["path"]))) is not None:
        notes.append(why)
    data = data_facts(sweep, predictions)
    claims, setting = check_claims(comparison, chosen_runs(sweep, comparison), sweep.epochs)

    sizes = compare_data_sizes(parts, sweep, comparison, rng)

    with raising_write_error(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "figures"):  # what killed processes, and disks gone read-only, have left there
        delete_stale_temporaries(folder)
    figures_planned = plans(sweep, comparison, data, best, predictions, rng, sizes)
    grids_planned = grid_specs.grid_specs(sweep, comparison, best, predictions, data)
    jobs: list[Callable[[], Any]] = [
        partial(_write_tables, out, everything, comparison),  # takes longest, so it is begun first
        *(partial(_draw, plan, out / "figures") for plan in figures_planned),
        *(partial(grid_specs.write, plan, out / f"{plan.name}.png") for plan in grids_planned),
    ]
    made = do(jobs)[1:]
    shown = [picture for picture in made[: len(figures_planned)] if picture is not None]
    shown_grids = []
    for picture, faults in made[len(figures_planned) :]:
        shown_grids.append(picture)
        notes += faults

    headline = describe_verdict(comparison, result).headline
    content = json_document.json_document(sweep, comparison, result, data, best, notes)
    content["claims"] = json_document.claim_records(claims, setting)
    told_sizes = [data_size_record(size) for size in sizes]
    facts = html.PageFacts(
        recommendation_facts(comparison, result, data), budget_options(comparison), told_sizes, claims, setting
    )
    content["card"] = {
        "facts": facts.card,
        "by_budget": [json_document.step_record(step) for step in facts.steps],
        "by_size": facts.sizes,
    }
    write_latex(out / "comparison.tex", comparison, headline)
    markdown.write_markdown(out / "comparison.md", comparison, claims, [headline, *notes])
    model_card.write_model_card(out / "model_card.md", sweep, comparison, content, best)
    json_document.write_json(out / "report.json", content)
    commands = _commands(sweep, best, target, seed)
    html.write_html(
        out / "report.html",
        sweep,
        comparison,
        content,
        facts,
        html.EmbeddedImages(shown, shown_grids, _best_said(comparison, best)),
        commands,
    )
    _remove_stale_figures(out, {picture["title"] for picture in shown} | {plan.name for plan in grids_planned})
    return comparison, [headline, *notes]


def _write_tables(out: Path, sweep: Sweep, comparison: Comparison) -> None:
    csv_files.write_csv(out / "comparison.csv", comparison.strategies)
    csv_files.write_csv(out / "recipes.csv", comparison.recipes)
    pairs = csv_files.pair_records(comparison.pairs)
    write_table(out / "pairs.csv", list(PAIRS), [[row[name] for name in PAIRS] for row in pairs])
    csv_files.write_frame(out / "runs.csv", sweep.runs)
    csv_files.write_frame(out / "epochs.csv", sweep.epochs)


def _remove_stale_figures(out: Path, names: set[str]) -> None:
    """Delete what an earlier report drew and this one does not: it would pass for this one's."""
    for path in [*(out / "figures").glob("*.png"), *(out / "figures").glob("*.pdf"), *out.glob("prediction_grid*.png")]:
        if path.stem not in names and is_ours(path):
            path.unlink()


def _draw(planned: FigureSpec | LazyFigure, folder: Path) -> dict[str, str] | None:
    """Write a figure, unless it is there; return what the report needs of it, or None where it has nothing to show."""
    plan = planned if isinstance(planned, FigureSpec) else planned()
    if plan is None:
        return None
    key = digest(plan.draw.__name__, plan.shows, plan.height)
    png, pdf = figures.paths(folder / plan.name)
    if not (is_drawn(png, key) and is_drawn(pdf, key)):
        figures.save(figures.new_figure(partial(plan.draw, *plan.shows), plan.height), folder / plan.name, key)
    return style.embedded_image(png, plan.alt, plan.name, plan.caption)


def _best_said(comparison: Comparison, best: "pd.Series[Any]") -> str:
    """Return which run the grid shows, and why that one."""
    names = dict(zip(comparison.recipes["key"], comparison.recipes["recipe"], strict=True))
    fold = "" if pd.isna(best["fold"]) else f", fold {best['fold']:g}"
    return (
        f"Run {best['run']} ({best['strategy']}, {names[best['recipe']]}, seed {best['seed']:g}{fold}): "
        "of the chosen recipes' runs it has the highest val accuracy."
    )


def _commands(sweep: Sweep, best: "pd.Series[Any]", target: float, seed: int) -> list[str]:
    """Return the commands that make the report again, the best run, and predictions with it."""
    flags = [] if target == 0.8 else ["--target", f"{target:g}"]
    flags += ["--mix-data"] if sweep.mixed else []
    flags += [] if seed == comparison.SEED else ["--seed", str(seed)]
    of_report = command_for("python", "-m", "analysis", sweep.folder, *flags)
    made = recorded(best.get("provenance/command"))
    use = command_for("python", "-m", "finetune.predict", best["path"], "PICTURES", "--csv", "predictions.csv")
    return [of_report, *([made] if made else []), use]
