"""Everything a reader gets, in the order it is made: tables, answer, figures, grid, report."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis import class_figure, figures, grid, report, tables, wording
from analysis.answer import answer
from analysis.by_class import recall_frame
from analysis.errors import InputError
from analysis.frames import Sweep
from analysis.predictions import read_predictions
from analysis.repeats import unit
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
    runs = tables.chosen_runs(sweep, comparison)
    of_best = dict(zip(predictions["path"], predictions["label"], strict=True)) if predictions is not None else {}
    recalls = recall_frame(runs, [sweep.tested[run] for run in runs["run"] if run in sweep.tested] or [of_best])
    shown = [draw() for draw in watch(_figures(sweep, comparison, data, recalls, out / "figures"))]
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
    sweep: Sweep, comparison: tables.Comparison, data: dict[str, Any], recalls: pd.DataFrame, folder: Path
) -> list[Callable[[], dict[str, str]]]:
    """Return a task for each figure that writes it and returns what the report needs."""
    runs, strategies = tables.chosen_runs(sweep, comparison), comparison.strategies
    one = unit(comparison.recipes["over"])
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
    plans: list[tuple[str, Callable[[Axes], Axes], str, str, float]] = [
        (
            "accuracy_by_strategy",
            lambda ax: figures.accuracy_by_strategy(strategies, runs, data["chance"], ax),
            f"Dots with intervals, test accuracy by strategy: {ranking}.",
            f"Test accuracy of each chosen recipe: mean over {one}s with its 95% interval; rings are single {one}s.",
            figures.HEIGHT,
        ),
        (
            "accuracy_against_time",
            lambda ax: figures.accuracy_against_time(sweep.finished, runs, ax),
            f"Scatter plot, test accuracy against training time: {times}.",
            "Bold points are the runs of the chosen recipes, pale points all other finished runs. "
            "Up and to the left is better.",
            figures.HEIGHT,
        ),
        (
            "learning_curves",
            lambda ax: figures.learning_curves(runs, sweep.epochs, ax),
            f"Line plot, val accuracy by epoch for each strategy. Mean of the best epochs: {best_val}.",
            f"Val accuracy by epoch: mean over {one}s, the band from the worst to the best {one}. "
            "A triangle marks the first epoch in which more blocks train than before.",
            figures.HEIGHT,
        ),
        (
            "rate_by_strategy",
            lambda ax: figures.rate_by_strategy(comparison.recipes, ax),
            f"Heat map, val accuracy by strategy and learning rate. Chosen rates: {rates}.",
            f"Mean val accuracy over {one}s of the best recipe at each rate; the box is the recipe that val chose. "
            "A choice at the edge says that rates beyond it may be better still.",
            figures.HEIGHT,
        ),
    ]

    if len(recalls):  # earlier versions did not tell
        lowest = ", ".join(
            f"{row['strategy']} {wording.percent(row['lowest_recall'])} of {row['lowest_recall_class']}"
            for _, row in strategies.dropna(subset=["lowest_recall"]).iterrows()
        )
        plans.append(
            (
                "recall_by_class",
                lambda ax: class_figure.recall_by_class(recalls, ax),
                f"Dots, recall on test by class and strategy. Lowest: {lowest}.",
                f"Recall on test of each class, mean over {one}s: the share of its pictures that were named rightly. "
                "Classes with the most test pictures come first.",
                class_figure.height_for(recalls["class"].nunique()),
            )
        )

    def draw(name: str, plan: Callable[[Axes], Axes], alt: str, caption: str, height: float) -> dict[str, str]:
        png, _ = figures.save(figures.new_figure(plan, height), folder / name)
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
    fold = "" if pd.isna(best["fold"]) else f", fold {best['fold']:g}"
    return (
        f"Run {best['run']} ({best['strategy']}, {names[best['recipe']]}, seed {best['seed']:g}{fold}): "
        "of the chosen recipes' runs it has the highest val accuracy."
    )


def _commands(sweep: Sweep, best: "pd.Series[Any]", target: float) -> list[str]:
    """Return the commands that make the report again, and the best run."""
    flags = ("" if target == 0.8 else f" --target {target:g}") + (" --mix-data" if sweep.mixed else "")
    of_report = f"python -m analysis {sweep.folder}{flags}"
    made = best.get("provenance/command")
    return [of_report, *([str(made)] if isinstance(made, str) and made else [])]
