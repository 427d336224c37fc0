"""Everything a reader gets, in the order it is made: tables, answer, figures, grid, report."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis import figures, grid, report, tables, wording
from analysis.answer import answer
from analysis.errors import InputError
from analysis.frames import Sweep, read_predictions
from finetune.record import THUMBNAILS


def build(
    sweep: Sweep, out: Path, target: float, watch: Callable[[list[Any]], Iterable[Any]] = lambda steps: steps
) -> tuple[tables.Comparison, list[str]]:
    """Write everything there is to say of a sweep into `out`.

    Returns:
        the comparison, and the sentences that belong to it, the answer first.
    """
    comparison = tables.compare(sweep, target)
    result = answer(comparison)
    best = tables.best_run(sweep, comparison)
    notes = [*([said] if (said := report.left_out_sentence(sweep)) else []), *comparison.notes, *sweep.notes]
    try:
        predictions = read_predictions(Path(best["path"]))
    except InputError as error:
        predictions = None
        notes.append(str(error))
    data = report.data_facts(sweep, predictions)

    (out / "figures").mkdir(parents=True, exist_ok=True)
    shown = [draw() for draw in watch(_figures(sweep, comparison, data, out / "figures"))]
    shown_grid = None
    if predictions is not None:
        shown_grid, fault = _grid(best, predictions, data, out / "prediction_grid.png")
        notes += fault
    else:
        (out / "prediction_grid.png").unlink(missing_ok=True)  # an older one would pass for this report's

    content = report.document(sweep, comparison, result, data, best, notes)
    tables.write_csv(out / "comparison.csv", comparison.strategies)
    tables.write_csv(out / "recipes.csv", comparison.recipes)
    wording.write_markdown(out / "comparison.md", comparison.strategies, target, [result.headline, *notes])
    report.write_json(out / "report.json", content)
    commands = _commands(sweep, best, target)
    report.write_html(
        out / "report.html", sweep, comparison, content, shown, shown_grid, _best_said(comparison, best), commands
    )
    return comparison, [result.headline, *notes]


def _figures(
    sweep: Sweep, comparison: tables.Comparison, data: dict[str, Any], folder: Path
) -> list[Callable[[], dict[str, str]]]:
    """Return a task for each figure that writes it and returns what the report needs."""
    runs, strategies = tables.chosen_runs(sweep, comparison), comparison.strategies
    ranking = ", ".join(
        f"{row['strategy']} {wording.percent(row['test_accuracy_mean'])} "
        f"({wording.interval(row['test_accuracy_low'], row['test_accuracy_high'])})"
        for _, row in strategies.iterrows()
    )
    times = ", ".join(
        f"{row['strategy']} {wording.percent(row['test_accuracy_mean'])} in {wording.spent(row)}"
        for _, row in strategies.iterrows()
    )
    best_val = ", ".join(
        f"{row['strategy']} {wording.percent(row['val_accuracy_mean'])}" for _, row in strategies.iterrows()
    )
    rates = ", ".join(f"{row['strategy']} {row['lr']:g}" for _, row in strategies.iterrows())
    plans: list[tuple[str, Callable[[Axes], Axes], str, str]] = [
        (
            "accuracy_by_strategy",
            lambda ax: figures.accuracy_by_strategy(strategies, runs, data["chance"], ax),
            f"Dots with intervals, test accuracy by strategy: {ranking}.",
            "Test accuracy of each chosen recipe: mean over seeds with its 95% interval; rings are single seeds.",
        ),
        (
            "accuracy_against_time",
            lambda ax: figures.accuracy_against_time(sweep.finished, runs, ax),
            f"Scatter plot, test accuracy against training time: {times}.",
            "Bold points are the runs of the chosen recipes, pale points all other finished runs. "
            "Up and to the left is better.",
        ),
        (
            "learning_curves",
            lambda ax: figures.learning_curves(runs, sweep.epochs, ax),
            f"Line plot, val accuracy by epoch for each strategy. Mean of the best epochs: {best_val}.",
            "Val accuracy by epoch: mean over seeds, the band from the worst to the best seed. "
            "A triangle marks the first epoch in which more blocks train than before.",
        ),
        (
            "rate_by_strategy",
            lambda ax: figures.rate_by_strategy(comparison.recipes, ax),
            f"Heat map, val accuracy by strategy and learning rate. Chosen rates: {rates}.",
            "Mean val accuracy over seeds of the best recipe at each rate; the box is the recipe that val chose. "
            "A choice at the edge says that rates beyond it may be better still.",
        ),
    ]

    def draw(name: str, plan: Callable[[Axes], Axes], alt: str, caption: str) -> dict[str, str]:
        png, _ = figures.save(figures.new_figure(plan), folder / name)
        return report.picture(png, alt, name, caption)

    return [partial(draw, *plan) for plan in plans]


def _grid(
    best: "pd.Series[Any]", predictions: pd.DataFrame, data: dict[str, Any], path: Path
) -> tuple[dict[str, str], list[str]]:
    """Write the prediction grid; return what the report needs, and what is amiss with the pictures."""
    chosen = grid.choose_pictures(predictions, data["classes"])
    root = best.get("provenance/data_root")
    folder = Path(root) if isinstance(root, str) else None
    pictures = grid.find_pictures(chosen, Path(best["path"]), folder)
    accuracy = f"{wording.percent(predictions['correct'].mean())} of {len(predictions)} test pictures right"
    title = f"{best['run']} on {data['name']}: {accuracy}"
    grid.save_grid(grid.draw_grid(chosen, pictures, title), path)
    shares = ", ".join(f"{name} {right} of {total}" for name, (right, total) in chosen.recall.items())
    shown = report.picture(
        path, f"Test pictures by class with predictions. Right by class: {shares}.", title, chosen.caption, True
    )
    wanted = sum(len(rows) for rows in chosen.cells.values())
    if len(pictures) == wanted:
        return shown, []
    where = str(Path(best["path"]) / THUMBNAILS) + (f" and below {folder}" if folder else "")
    return shown, [f"The prediction grid shows {len(pictures)} of {wanted} pictures; the others are not in {where}."]


def _best_said(comparison: tables.Comparison, best: "pd.Series[Any]") -> str:
    """Return which run the grid shows, and why that one."""
    names = dict(zip(comparison.recipes["key"], comparison.recipes["recipe"], strict=True))
    return (
        f"Run {best['run']} ({best['strategy']}, {names[best['recipe']]}, seed {best['seed']:g}): "
        "of the chosen recipes' runs it has the highest val accuracy."
    )


def _commands(sweep: Sweep, best: "pd.Series[Any]", target: float) -> list[str]:
    """Return the commands that make the report again, and the best run."""
    of_report = f"python -m analysis {sweep.folder}" + ("" if target == 0.8 else f" --target {target:g}")
    made = best.get("provenance/command")
    return [of_report, *([str(made)] if isinstance(made, str) and made else [])]
