"""Everything a reader gets, in the order it is made: tables, answer, figures, grids, report."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import columns, figures, grids, model_card, page, report, tables, wording
from analysis.answer import answer
from analysis.card import by_budget, card
from analysis.claims import check_claims
from analysis.commands import command, recorded
from analysis.drawing import Later, Plan, plans
from analysis.drawn import digest, is_drawn, is_ours
from analysis.errors import InputError
from analysis.facts import data_facts, left_out_sentence
from analysis.frames import Sweep
from analysis.latex import write_latex
from analysis.pairs import PAIRS
from analysis.parallel import Do, one_by_one
from analysis.predictions import read_predictions
from analysis.sizes import by_size, largest, size_record
from finetune.system.atomic import delete_stale_temporaries, raising_write_error
from finetune.system.tables import write_table


def build(
    sweep: Sweep,
    out: Path,
    target: float,
    do: Do = one_by_one,
    seed: int = tables.SEED,
    look: Callable[[Path], str | None] = lambda run_dir: None,  # noqa: ARG005
) -> tuple[tables.Comparison, list[str]]:
    """Write everything there is to say of a sweep into `out`.

    Args:
        target: val accuracy to time the way to.
        do: does what is to be drawn and written, and returns what comes of it (see parallel.py).
        seed: of all that is drawn at random.
        look: has the best run draw where it looked, and returns why it can't (see attention.py).

    Returns:
        the comparison, and the sentences that belong to it, the answer first.
    """
    rng = np.random.default_rng(seed)
    everything = sweep
    sweep, parts = largest(sweep)
    comparison = tables.compare(sweep, target, rng)
    result = answer(comparison)
    best = tables.best_run(sweep, comparison)
    notes = [*([said] if (said := left_out_sentence(sweep)) else []), *comparison.notes, *sweep.notes]
    try:
        predictions = read_predictions(Path(best["path"]))
    except InputError as error:
        predictions = None
        notes.append(str(error))
    if (why := look(Path(best["path"]))) is not None:
        notes.append(why)
    data = data_facts(sweep, predictions)
    claims, setting = check_claims(comparison, tables.chosen_runs(sweep, comparison), sweep.epochs)

    sizes = by_size(parts, sweep, comparison, rng)

    with raising_write_error(out):
        (out / "figures").mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "figures"):  # what killed processes, and disks gone read-only, have left there
        delete_stale_temporaries(folder)
    figures_planned = plans(sweep, comparison, data, best, predictions, rng, sizes)
    grids_planned = grids.plans(sweep, comparison, best, predictions, data)
    jobs: list[Callable[[], Any]] = [
        partial(_write_tables, out, everything, comparison),  # takes longest, so it is begun first
        *(partial(_draw, plan, out / "figures") for plan in figures_planned),
        *(partial(grids.write, plan, out / f"{plan.name}.png") for plan in grids_planned),
    ]
    made = do(jobs)[1:]
    shown = [picture for picture in made[: len(figures_planned)] if picture is not None]
    shown_grids = []
    for picture, faults in made[len(figures_planned) :]:
        shown_grids.append(picture)
        notes += faults

    content = report.document(sweep, comparison, result, data, best, notes)
    content["claims"] = report.claim_records(claims, setting)
    told_sizes = [size_record(size) for size in sizes]
    facts = page.Facts(card(comparison, result, data), by_budget(comparison), told_sizes, claims, setting)
    content["card"] = {
        "facts": facts.card,
        "by_budget": [report.step_record(step) for step in facts.steps],
        "by_size": facts.sizes,
    }
    write_latex(out / "comparison.tex", comparison, result.headline)
    wording.write_markdown(out / "comparison.md", comparison, claims, [result.headline, *notes])
    model_card.write(out / "model_card.md", sweep, comparison, content, best)
    report.write_json(out / "report.json", content)
    commands = _commands(sweep, best, target, seed)
    page.write_html(
        out / "report.html",
        sweep,
        comparison,
        content,
        facts,
        page.Pictures(shown, shown_grids, _best_said(comparison, best)),
        commands,
    )
    _forget(out, {picture["title"] for picture in shown} | {plan.name for plan in grids_planned})
    return comparison, [result.headline, *notes]


def _write_tables(out: Path, sweep: Sweep, comparison: tables.Comparison) -> None:
    columns.write_csv(out / "comparison.csv", comparison.strategies)
    columns.write_csv(out / "recipes.csv", comparison.recipes)
    pairs = columns.pair_records(comparison.pairs)
    write_table(out / "pairs.csv", list(PAIRS), [[row[name] for name in PAIRS] for row in pairs])
    columns.write_frame(out / "runs.csv", sweep.runs)
    columns.write_frame(out / "epochs.csv", sweep.epochs)


def _forget(out: Path, names: set[str]) -> None:
    """Delete what an earlier report drew and this one does not: it would pass for this one's."""
    for path in [*(out / "figures").glob("*.png"), *(out / "figures").glob("*.pdf"), *out.glob("prediction_grid*.png")]:
        if path.stem not in names and is_ours(path):
            path.unlink()


def _draw(planned: Plan | Later, folder: Path) -> dict[str, str] | None:
    """Write a figure, unless it is there; return what the report needs of it, or None where it has nothing to show."""
    plan = planned if isinstance(planned, Plan) else planned()
    if plan is None:
        return None
    key = digest(plan.draw.__name__, plan.shows, plan.height)
    png, pdf = figures.paths(folder / plan.name)
    if not (is_drawn(png, key) and is_drawn(pdf, key)):
        figures.save(figures.new_figure(partial(plan.draw, *plan.shows), plan.height), folder / plan.name, key)
    return page.picture(png, plan.alt, plan.name, plan.caption)


def _best_said(comparison: tables.Comparison, best: "pd.Series[Any]") -> str:
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
    flags += [] if seed == tables.SEED else ["--seed", str(seed)]
    of_report = command("python", "-m", "analysis", sweep.folder, *flags)
    made = recorded(best.get("provenance/command"))
    use = command("python", "-m", "finetune.predict", best["path"], "PICTURES", "--csv", "predictions.csv")
    return [of_report, *([made] if made else []), use]
