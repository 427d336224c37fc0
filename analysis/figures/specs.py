"""The figures and prediction grids of a report: what each shows, its caption, and its text alternative.

To add a figure: write a function that draws it on axes, a function here that returns its `FigureSpec`, and a line in
FIGURES.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.errors import InputError
from analysis.figures.accuracy import accuracy_against_time, accuracy_by_strategy, differences_to_candidate
from analysis.figures.calibration import reliability_diagram
from analysis.figures.classes import confusion_matrix, height_for, recall_by_class
from analysis.figures.curves import learning_curves, time_to_target
from analysis.figures.data_size import accuracy_by_size
from analysis.figures.grid_selection import (
    Grid,
    choose_confident_errors,
    choose_differing,
    choose_images,
    choose_least_confident,
)
from analysis.figures.prediction_grid import draw_grid, find_images
from analysis.figures.schedule import schedule_diagram
from analysis.figures.settings import importance_bars, rate_by_strategy
from analysis.figures.style import HEIGHT, new_figure
from analysis.formatting import accuracy_interval, format_points, format_target, percent, train_time_text
from analysis.sources.predictions import read_predictions
from analysis.tables import per_class
from analysis.tables.analysis import Analysis
from analysis.tables.data_size import data_size_frame
from analysis.tables.recipes import setting_importance
from analysis.tables.selection import best_by_val
from analysis.tables.target import times_to_target
from finetune.rundir.keys import ATTENTION, THUMBNAILS


@dataclass(frozen=True)
class FigureSpec:
    """A figure before it is drawn.

    Attributes:
        draw: returns the figure.
        alt: the text alternative, with the most important numbers.
        caption: how to read it.
        title: its heading in the report; "" where the title is in the figure.
        notes: which images are missing.
    """

    draw: Callable[[], Figure]
    alt: str
    caption: str
    title: str = ""
    notes: tuple[str, ...] = ()


SpecFunction = Callable[[Analysis], FigureSpec | None]  # None: the sweep has nothing to show in this figure


def _differences(analysis: Analysis) -> FigureSpec | None:
    comparison, verdict = analysis.comparison, analysis.verdict
    if not verdict.differences:
        return None
    texts = ", ".join(
        f"{other.arm} {other.difference * 100:+.1f} ({format_points(other.low, other.high)})"
        for other in verdict.differences
    )
    return FigureSpec(
        _on_axes(
            differences_to_candidate,
            comparison.arms,
            comparison.candidate,
            verdict.margin,
            height=1.6 + 0.55 * len(verdict.differences),
        ),
        f"Forest plot, test accuracy minus that of {comparison.candidate}, in points: {texts}.",
        f"Difference of each arm to {comparison.candidate}, which has the highest val accuracy: mean and 95% interval "
        "for new images and new training runs; * significant after Holm's correction. The band is the margin.",
    )


def _accuracy_by_strategy(analysis: Analysis) -> FigureSpec:
    strategies, kind = analysis.comparison.arms, analysis.replicate
    accuracies = _by_strategy(strategies, lambda row: f"{_test_accuracy(row)} ({accuracy_interval(row)})")
    return FigureSpec(
        _on_axes(accuracy_by_strategy, strategies, analysis.chosen, analysis.data["chance"]),
        f"Dots with intervals, test accuracy by strategy: {accuracies}.",
        f"Test accuracy of each chosen recipe: mean over {kind}s with its 95% interval; rings are single {kind}s.",
    )


def _accuracy_against_time(analysis: Analysis) -> FigureSpec:
    times = _by_strategy(analysis.comparison.arms, lambda row: f"{_test_accuracy(row)} in {train_time_text(row)}")
    return FigureSpec(
        _on_axes(accuracy_against_time, analysis.sweep.finished, analysis.chosen),
        f"Scatter plot, test accuracy against training time: {times}.",
        "Bold points are runs of the chosen recipes, pale points all other runs. Up and to the left is better. "
        "The dashed line is the Pareto front of the means: no strategy is both cheaper and more accurate than one"
        " on it.",
    )


def _accuracy_by_size(analysis: Analysis) -> FigureSpec | None:
    table = data_size_frame(analysis.sizes)
    if table["images"].nunique() < 2:
        return None
    accuracies = "; ".join(
        f"{size.images:,} images: {_by_strategy(size.comparison.arms, _test_accuracy)}"
        for size in analysis.sizes
        if size.images
    )
    return FigureSpec(
        _on_axes(accuracy_by_size, table),
        f"Lines with intervals, test accuracy by number of training images: {accuracies}.",
        "Test accuracy of each chosen recipe, mean with 95% interval, by the number of training images. Smaller "
        "training sets are parts of larger ones; the test set is always the same.",
    )


def _learning_curves(analysis: Analysis) -> FigureSpec:
    kind = analysis.replicate
    best = _by_strategy(analysis.comparison.arms, lambda row: percent(row["val_accuracy_mean"]))
    return FigureSpec(
        _on_axes(learning_curves, analysis.chosen, analysis.sweep.epochs),
        f"Line plot, val accuracy by epoch for each strategy. Mean of the best epochs: {best}.",
        f"Val accuracy by epoch: mean over {kind}s; the band goes from the worst to the best {kind}. A run that ended "
        "early keeps its last value. "
        "A triangle marks each epoch in which more blocks train than in the epoch before.",
    )


def _time_to_target(analysis: Analysis) -> FigureSpec | None:
    times, target = _times_to_target(analysis), format_target(analysis.comparison.target)
    if times.empty:
        return None
    reached = _by_strategy(analysis.comparison.arms, lambda row: f"{row['seeds_reaching_target']} of {row['n']}")
    return FigureSpec(
        _on_axes(time_to_target, times, analysis.comparison.target),
        f"Step plot, share of runs that have reached {target} val accuracy by epoch. Runs that did: {reached}.",
        f"Share of the chosen recipes' runs that have reached {target} val accuracy by each epoch. "
        "A cross at the end of a line: some runs ended without reaching it. Equal lines are drawn a little apart.",
    )


def _schedule(analysis: Analysis) -> FigureSpec | None:
    if _times_to_target(analysis).empty:
        return None
    frozen = _by_strategy(
        analysis.comparison.arms,
        lambda row: f"{percent(1 - row['frozen_block_share'], 0)} of the blocks on average",
    )
    return FigureSpec(
        _on_axes(schedule_diagram, analysis.chosen, analysis.sweep.epochs),
        f"Diagram, share of the backbone that trains in each epoch: {frozen}.",
        "The coloured part of a band is the share of the backbone's blocks that trains, counted from the head (the "
        "edge on top, which always trains); grey is frozen.",
    )


def _rate_by_strategy(analysis: Analysis) -> FigureSpec:
    rates = _by_strategy(analysis.comparison.arms, lambda row: f"{row['lr']:g}")
    return FigureSpec(
        _on_axes(rate_by_strategy, analysis.comparison.recipes),
        f"Heat map, val accuracy by strategy and learning rate. Chosen rates: {rates}.",
        f"Mean val accuracy over {analysis.replicate}s of the best recipe at each rate (over fewer where the cell says "
        "so). A box marks the recipe with the highest val accuracy among those with the most runs. If it is at the "
        "edge, rates beyond may be better still.",
    )


def _importance(analysis: Analysis) -> FigureSpec | None:
    ranked = setting_importance(analysis.sweep.finished, np.random.default_rng(analysis.options.seed))
    if ranked is None:
        return None
    points = ", ".join(f"{row['field']} {row['points'] * 100:.1f}" for _, row in ranked.iterrows())
    return FigureSpec(
        _on_axes(importance_bars, ranked, height=max(2.6, 1.4 + 0.42 * len(ranked))),
        f"Bars, permutation importance of each setting in points of val accuracy: {points}.",
        "Permutation importance (points of val accuracy) in a random forest that predicts each run from the others. "
        "Grey: the seed, for reference.",
    )


def _recall_by_class(analysis: Analysis) -> FigureSpec | None:
    test_sets, chosen, predictions = analysis.sweep.test_images, analysis.chosen, analysis.predictions
    of_best = {} if predictions is None else dict(zip(predictions["path"], predictions["label"], strict=True))
    recalls = per_class.recall_frame(chosen, [test_sets[run] for run in chosen["run"] if run in test_sets] or [of_best])
    if recalls.empty:  # earlier versions did not record it
        return None
    lowest = _by_strategy(
        analysis.comparison.arms.dropna(subset=["lowest_recall"]),
        lambda row: f"{percent(row['lowest_recall'])} of {row['lowest_recall_class']}",
    )
    return FigureSpec(
        _on_axes(recall_by_class, recalls, height=height_for(recalls["class"].nunique())),
        f"Dots, recall on test by class and strategy. Lowest: {lowest}.",
        f"Recall of each class, mean over {analysis.replicate}s: the share of its test images that are classified "
        "correctly. Classes with the most test images come first.",
    )


def _confusion_matrix(analysis: Analysis) -> FigureSpec | None:
    predictions = analysis.predictions
    if predictions is None:
        return None
    table = per_class.confusion_table(predictions, analysis.data["classes"])
    errors = predictions[~predictions["correct"]][["label", "prediction"]].itertuples(index=False, name=None)
    most = ", ".join(f"{label} as {other} ({count})" for (label, other), count in Counter(errors).most_common(3))
    return FigureSpec(
        _on_axes(confusion_matrix, table, height=max(HEIGHT, 2.2 + 0.32 * min(len(table), 20))),
        f"Confusion matrix of the best run on test. Most frequent confusions: {most or 'none'}.",
        "Test images of the best run. Rows are true classes, columns predicted ones, shaded by the share of the row. "
        "The diagonal is correct.",
    )


def _reliability(analysis: Analysis) -> FigureSpec | None:
    temperature = analysis.best.get("temperature")
    try:
        calibration = per_class.reliability(analysis.best_dir, None if pd.isna(temperature) else float(temperature))
    except InputError:
        return None
    points = ", ".join(
        f"{which} temperature scaling {error * 100:.1f} points" for which, error in calibration.errors.items()
    )
    images = len(analysis.predictions) if analysis.predictions is not None else 0
    return FigureSpec(
        _on_axes(reliability_diagram, calibration.bins, calibration.errors),
        f"Reliability diagram of the best run on test. Expected calibration error: {points}.",
        "Accuracy of the best run on test by confidence, in 15 bins; larger marks are more images. Below the diagonal, "
        "confidence is too high. The temperature is fitted on val. Even a perfectly calibrated network shows an error "
        f"of about {calibration.perfect * 100:.1f} points on {images:,} images.",
    )


FIGURES: dict[str, SpecFunction] = {  # by file name, in the order of the report
    "differences": _differences,
    "accuracy_by_strategy": _accuracy_by_strategy,
    "accuracy_against_time": _accuracy_against_time,
    "accuracy_by_size": _accuracy_by_size,
    "learning_curves": _learning_curves,
    "time_to_target": _time_to_target,
    "schedule": _schedule,
    "rate_by_strategy": _rate_by_strategy,
    "importance": _importance,
    "recall_by_class": _recall_by_class,
    "confusion_matrix": _confusion_matrix,
    "reliability": _reliability,
}


def _on_axes(draw: Callable[..., Any], *data: Any, height: float = HEIGHT) -> Callable[[], Figure]:
    """Return a function that returns a figure with what `draw` draws of `data`."""
    return partial(new_figure, partial(draw, *data), height)


def _by_strategy(strategies: pd.DataFrame, text_of: "Callable[[pd.Series[Any]], str]") -> str:
    return ", ".join(f"{row['strategy']} {text_of(row)}" for _, row in strategies.iterrows())


def _test_accuracy(row: "pd.Series[Any]") -> str:
    return percent(row["test_accuracy_mean"])


def _times_to_target(analysis: Analysis) -> pd.DataFrame:
    """Return the epochs to the target of the chosen recipes' runs; empty where no history was recorded."""
    return times_to_target(analysis.chosen, analysis.sweep.epochs, analysis.comparison.target)


def _grid_by_class(analysis: Analysis) -> FigureSpec | None:
    predictions = analysis.predictions
    if predictions is None:
        return None
    grid, root = choose_images(predictions, analysis.data["classes"]), _data_root(analysis)
    shares = ", ".join(f"{name} {correct} of {total}" for name, (correct, total) in grid.recall.items())
    accuracy = f"{percent(predictions['correct'].mean())} of {len(predictions)} test images correct"
    images = find_images(grid, [analysis.best_dir], root)
    notes = []
    if missing := len(grid.paths) - len(images):
        places = str(analysis.best_dir / THUMBNAILS) + (f" and not below {root}" if root else "")
        notes.append(f"{missing} of the {len(grid.paths)} images of the prediction grid are missing: not in {places}.")
    title = f"{analysis.best['run']} on {analysis.data['name']}: {accuracy}"
    alt = f"Test images by class with predictions. Correct by class: {shares}."
    return FigureSpec(partial(draw_grid, grid, images, title), alt, grid.caption, title, tuple(notes))


def _grid_of_attention(analysis: Analysis) -> FigureSpec | None:
    """Return the grid by class with attention maps, if there are any (see finetune/attention.py)."""
    if analysis.predictions is None or not (analysis.best_dir / ATTENTION).is_file():
        return None
    grid = choose_images(analysis.predictions, analysis.data["classes"])
    grid = replace(
        grid,
        caption="Grad-CAM over the same images, cropped as for evaluation: colour marks evidence for the prediction.",
    )
    images = find_images(grid, [analysis.best_dir], None, ATTENTION)
    return _grid_spec(grid, images, f"Attention of {analysis.best['run']}")


def _grid_of_best(choose: Callable[[pd.DataFrame], Grid | None], title: str, analysis: Analysis) -> FigureSpec | None:
    """Return a grid of predictions of the best run."""
    grid = None if analysis.predictions is None else choose(analysis.predictions)
    if grid is None:
        return None
    images = find_images(grid, [analysis.best_dir], _data_root(analysis))
    return _grid_spec(grid, images, f"{title} of {analysis.best['run']} on test")


def _grid_of_differences(analysis: Analysis) -> FigureSpec | None:
    """Return the grid of the best run against the best run, by val, of another strategy."""
    best, predictions = analysis.best, analysis.predictions
    others = analysis.chosen[analysis.chosen["arm"] != best["arm"]]
    if predictions is None or others.empty:
        return None
    other = best_by_val(others)
    other_dir = Path(other["path"])
    try:
        grid = choose_differing(predictions, read_predictions(other_dir), (str(best["arm"]), str(other["arm"])))
    except InputError:
        return None
    if grid is None:
        return None
    images = find_images(grid, [analysis.best_dir, other_dir], _data_root(analysis))
    return _grid_spec(grid, images, f"Differences between {best['run']} and {other['run']}")


GRIDS: dict[str, SpecFunction] = {  # by file name, in the order of the report
    "prediction_grid": _grid_by_class,
    "prediction_grid_attention": _grid_of_attention,
    "prediction_grid_confident_errors": partial(_grid_of_best, choose_confident_errors, "Most confident errors"),
    "prediction_grid_least_confident": partial(_grid_of_best, choose_least_confident, "Least confident predictions"),
    "prediction_grid_differences": _grid_of_differences,
}


def _grid_spec(grid: Grid, images: dict[str, Any], title: str) -> FigureSpec:
    return FigureSpec(partial(draw_grid, grid, images, title), f"{title}: {grid.caption}", grid.caption, title)


def _data_root(analysis: Analysis) -> Path | None:
    root = analysis.best.get("provenance/data_root")
    return Path(root) if isinstance(root, str) else None
