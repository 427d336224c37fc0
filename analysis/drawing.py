"""Which figures a report has, what each is called, and what is said of it to those who do not see it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import calibration, figures, wording
from analysis.by_class import recall_frame
from analysis.errors import InputError
from analysis.figures.accuracy import pareto_front
from analysis.frames import Sweep
from analysis.importance import importance, swept, values
from analysis.repeats import unit
from analysis.sizes import Size, size_frame
from analysis.survival import times_to_target
from analysis.tables import Comparison, chosen_runs


@dataclass(frozen=True)
class Plan:
    """A figure before it is drawn.

    Attributes:
        name: of its files.
        draw: draws it.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
        height: in inches.
    """

    name: str
    draw: Callable[[Axes], Axes]
    alt: str
    caption: str
    height: float = figures.HEIGHT


def plans(
    sweep: Sweep,
    comparison: Comparison,
    data: dict[str, Any],
    best: "pd.Series[Any]",
    predictions: pd.DataFrame | None,
    rng: np.random.Generator,
    sizes: list[Size],
) -> list[Plan]:
    """Return the figures that this sweep has something to show in, in their order.

    Args:
        data: as `report.data_facts` has it.
        best: the best run.
        predictions: its, or None.
        rng: of the importance of settings.
        sizes: numbers of training pictures, where the sweep has several.
    """
    runs = chosen_runs(sweep, comparison)
    asked = [
        *_of_accuracy(sweep, comparison, runs, data),
        *_of_sizes(sizes),
        *_of_training(sweep, comparison, runs),
        *_of_settings(sweep, comparison, rng),
        *_of_classes(sweep, comparison, runs, predictions, data),
        *_of_confidence(best),
    ]
    return [plan for plan in asked if plan is not None]


def _each(strategies: pd.DataFrame, say: "Callable[[pd.Series[Any]], str]") -> str:
    return ", ".join(f"{row['strategy']} {say(row)}" for _, row in strategies.iterrows())


def _of_accuracy(sweep: Sweep, comparison: Comparison, runs: pd.DataFrame, data: dict[str, Any]) -> list[Plan]:
    strategies, one = comparison.strategies, unit(comparison.recipes["over"])
    ranking = _each(
        strategies,
        lambda row: (
            f"{wording.percent(row['test_accuracy_mean'])} "
            f"({wording.interval(row['test_accuracy_low'], row['test_accuracy_high'])})"
        ),
    )
    times = _each(strategies, lambda row: f"{wording.percent(row['test_accuracy_mean'])} in {wording.spent(row)}")
    sizes = _each(strategies, lambda row: wording.quantity(row["trainable_parameters"]))
    points = pd.DataFrame({"cost": strategies["trainable_parameters"], "score": strategies["test_accuracy_mean"]})
    front = ", ".join(pareto_front(points.set_index(strategies["strategy"]).dropna()))
    dashed = "On the dashed line, the Pareto front, nothing as cheap is better."
    return [
        Plan(
            "accuracy_by_strategy",
            lambda ax: figures.accuracy_by_strategy(strategies, runs, data["chance"], ax),
            f"Dots with intervals, test accuracy by strategy: {ranking}.",
            f"Test accuracy of each chosen recipe: mean over {one}s with its 95% interval; rings are single {one}s.",
        ),
        Plan(
            "accuracy_against_time",
            lambda ax: figures.accuracy_against_time(sweep.finished, runs, ax),
            f"Scatter plot, test accuracy against training time: {times}.",
            "Bold points are the runs of the chosen recipes, pale points all other finished runs. "
            f"Up and to the left is better. {dashed}",
        ),
        Plan(
            "accuracy_against_parameters",
            lambda ax: figures.accuracy_against_parameters(strategies, runs, ax),
            f"Scatter plot, test accuracy against parameters that train: {sizes}. On the Pareto front: {front}.",
            f"Means with 95% intervals; pale points are single {one}s. {dashed}",
        ),
    ]


def _of_sizes(sizes: list[Size]) -> list[Plan]:
    table = size_frame(sizes)
    if table["pictures"].nunique() < 2:
        return []
    told = "; ".join(
        f"{size.pictures:,} pictures: {_each(size.comparison.strategies, _of_test)}" for size in sizes if size.pictures
    )
    return [
        Plan(
            "accuracy_by_size",
            lambda ax: figures.accuracy_by_size(table, ax),
            f"Lines with intervals, test accuracy by number of training pictures: {told}.",
            "Test accuracy of each chosen recipe, mean with 95% interval, by the number of training pictures; a "
            "smaller number is part of a larger one, and test is the same for all.",
        )
    ]


def _of_test(row: "pd.Series[Any]") -> str:
    return wording.percent(row["test_accuracy_mean"])


def _of_training(sweep: Sweep, comparison: Comparison, runs: pd.DataFrame) -> list[Plan | None]:
    strategies, one, target = comparison.strategies, unit(comparison.recipes["over"]), comparison.target
    best_val = _each(strategies, lambda row: wording.percent(row["val_accuracy_mean"]))
    times = times_to_target(runs, sweep.epochs, target)
    frozen = _each(
        strategies, lambda row: f"{wording.percent(1 - row['frozen_block_share'], 0)} of the blocks on average"
    )
    reached = _each(strategies, lambda row: f"{row['seeds_reaching_target']} of {row['n']}")
    curves = Plan(
        "learning_curves",
        lambda ax: figures.learning_curves(runs, sweep.epochs, ax),
        f"Line plot, val accuracy by epoch for each strategy. Mean of the best epochs: {best_val}.",
        f"Val accuracy by epoch: mean over {one}s, the band from the worst to the best {one}. "
        "A triangle marks the first epoch in which more blocks train than before.",
    )
    to_target = Plan(
        "time_to_target",
        lambda ax: figures.time_to_target(times, target, ax),
        f"Step plot, share of runs that have reached {target:.0%} val accuracy by epoch. Runs that did: {reached}.",
        f"Share of the chosen recipes' runs that have reached {target:.0%} on val by each epoch (Kaplan-Meier); a "
        "cross "
        "stands where runs ended without having reached it. Lines of one share are drawn a little apart.",
    )
    schedule = Plan(
        "schedule",
        lambda ax: figures.schedule_diagram(runs, sweep.epochs, ax),
        f"Diagram, the share of the backbone that trains in each epoch: {frozen}.",
        "The coloured part of a band is the share of the backbone's blocks that trains, counted from the head "
        "(the edge "
        "on top, which always trains); grey is frozen.",
    )
    return [curves, to_target, schedule] if len(times) else [curves]


def _of_settings(sweep: Sweep, comparison: Comparison, rng: np.random.Generator) -> list[Plan | None]:
    one = unit(comparison.recipes["over"])
    rates = _each(comparison.strategies, lambda row: f"{row['lr']:g}")
    found = [
        Plan(
            "rate_by_strategy",
            lambda ax: figures.rate_by_strategy(comparison.recipes, ax),
            f"Heat map, val accuracy by strategy and learning rate. Chosen rates: {rates}.",
            f"Mean val accuracy over {one}s of the best recipe at each rate, over fewer where it says so; "
            "the box is the recipe that val chose among those with the most. "
            "A choice at the edge says that rates beyond it may be better still.",
        )
    ]
    finished = sweep.finished
    fields = swept(finished)
    if len(fields) > 1:
        told = finished[["run", "strategy", "best/val_accuracy"]].assign(
            **{name: values(finished, name) for name in fields}
        )
        best = told.sort_values("best/val_accuracy").iloc[-1]
        through = ", ".join(f"{name} {best[name]}" for name in fields)
        found.append(
            Plan(
                "parallel_coordinates",
                lambda ax: figures.parallel_coordinates(told, fields, ax),
                f"Parallel coordinates, a line a run through {', '.join(fields)} to val accuracy. The best: {through}.",
                "A line a finished run, in its strategy's colour, from setting to setting to val accuracy.",
            )
        )
    ranked = importance(finished, rng)
    if ranked is not None:
        told_points = ", ".join(f"{row['field']} {row['points'] * 100:.1f}" for _, row in ranked.iterrows())
        found.append(
            Plan(
                "importance",
                lambda ax: figures.importance(ranked, ax),
                f"Bars, points of val accuracy by which a forest's guess gets worse without a setting: {told_points}.",
                "How much worse a random forest guesses a run's val accuracy when one setting is shuffled; each run is "
                "guessed by a forest that has not seen it. What is no longer than the grey bar can't be told "
                "from chance.",
                max(2.6, 1.4 + 0.42 * len(ranked)),
            )
        )
    return [*found]


def _of_classes(
    sweep: Sweep, comparison: Comparison, runs: pd.DataFrame, predictions: pd.DataFrame | None, data: dict[str, Any]
) -> list[Plan]:
    of_best = dict(zip(predictions["path"], predictions["label"], strict=True)) if predictions is not None else {}
    recalls = recall_frame(runs, [sweep.tested[run] for run in runs["run"] if run in sweep.tested] or [of_best])
    one, found = unit(comparison.recipes["over"]), []
    if len(recalls):  # earlier versions did not tell
        known = comparison.strategies.dropna(subset=["lowest_recall"])
        lowest = _each(known, lambda row: f"{wording.percent(row['lowest_recall'])} of {row['lowest_recall_class']}")
        found.append(
            Plan(
                "recall_by_class",
                lambda ax: figures.recall_by_class(recalls, ax),
                f"Dots, recall on test by class and strategy. Lowest: {lowest}.",
                f"Recall on test of each class, mean over {one}s: the share of its pictures that were named rightly. "
                "Classes with the most test pictures come first.",
                figures.height_for(recalls["class"].nunique()),
            )
        )
    if predictions is not None:
        table = calibration.confusion(predictions, data["classes"])
        wrong = Counter(
            predictions[~predictions["correct"]][["label", "prediction"]].itertuples(index=False, name=None)
        )
        most = ", ".join(f"{label} as {other} ({count})" for (label, other), count in wrong.most_common(3))
        found.append(
            Plan(
                "confusion_matrix",
                lambda ax: figures.confusion_matrix(table, ax),
                f"Confusion matrix of the best run on test. Most often taken for another: {most or 'none'}.",
                "Test pictures of the best run: a row a true class, a column a predicted one, shaded by the "
                "share of the "
                "row. On the diagonal they were named rightly.",
                max(figures.HEIGHT, 2.2 + 0.32 * min(len(table), 20)),
            )
        )
    return found


def _of_confidence(best: "pd.Series[Any]") -> list[Plan]:
    temperature = best.get("temperature")
    try:
        bins, errors = calibration.reliability(Path(best["path"]), None if pd.isna(temperature) else float(temperature))
    except InputError:
        return []
    told = ", ".join(f"{which} temperature scaling {error * 100:.1f} points" for which, error in errors.items())
    return [
        Plan(
            "reliability",
            lambda ax: figures.reliability_diagram(bins, errors, ax),
            f"Reliability diagram of the best run on test. Expected calibration error: {told}.",
            "Accuracy of the best run's test pictures by confidence, in 15 bins; larger marks are more pictures. Below "
            "the diagonal it is too sure. The temperature is fitted on val.",
        )
    ]
