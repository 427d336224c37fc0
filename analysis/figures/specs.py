"""Which figures a report has, what each is called, and what is said of it to those who do not see it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import figures, formatting
from analysis.errors import InputError
from analysis.sources.sweep import Sweep
from analysis.stats.importance import importance, values, varied_fields
from analysis.stats.pareto import pareto_front
from analysis.stats.survival import times_to_target
from analysis.tables import per_class
from analysis.tables.comparison import Comparison, chosen_runs
from analysis.tables.data_size import DataSizeResult, data_size_frame
from analysis.tables.per_class import recall_frame
from analysis.tables.replicates import replicate_kind


@dataclass(frozen=True)
class FigureSpec:
    """A figure before it is drawn.

    Attributes:
        name: of its files.
        draw: draws it: called with what it shows, and the axes.
        shows: what it shows.
        alt: what it shows, for those who do not see it.
        caption: how to read it.
        height: in inches.
    """

    name: str
    draw: Callable[..., Axes]
    shows: tuple[Any, ...]
    alt: str
    caption: str
    height: float = figures.HEIGHT


LazyFigure = Callable[[], FigureSpec | None]  # a figure of which it takes time to say what it shows


def plans(
    sweep: Sweep,
    comparison: Comparison,
    data: dict[str, Any],
    best: "pd.Series[Any]",
    predictions: pd.DataFrame | None,
    rng: np.random.Generator,
    sizes: list[DataSizeResult],
) -> list[FigureSpec | LazyFigure]:
    """Return the figures that this sweep has something to show in, in their order; a `Later` may come to have nothing.

    Args:
        data: as `facts.data_facts` has it.
        best: the best run.
        predictions: its, or None.
        rng: of the importance of settings.
        sizes: numbers of training pictures, where the sweep has several.
    """
    runs = chosen_runs(sweep, comparison)
    return [
        *_of_accuracy(sweep, comparison, runs, data),
        *_of_sizes(sizes),
        *_of_training(sweep, comparison, runs),
        *_of_settings(sweep, comparison),
        lambda: _of_importance(sweep.finished, rng),
        *_of_classes(sweep, comparison, runs, predictions, data),
        *_of_confidence(best),
    ]


def _each(strategies: pd.DataFrame, say: "Callable[[pd.Series[Any]], str]") -> str:
    return ", ".join(f"{row['strategy']} {say(row)}" for _, row in strategies.iterrows())


def _of_accuracy(sweep: Sweep, comparison: Comparison, runs: pd.DataFrame, data: dict[str, Any]) -> list[FigureSpec]:
    strategies, one = comparison.strategies, replicate_kind(comparison.recipes["over"])
    ranking = _each(
        strategies,
        lambda row: (
            f"{formatting.percent(row['test_accuracy_mean'])} "
            f"({formatting.format_interval(row['test_accuracy_low'], row['test_accuracy_high'])})"
        ),
    )
    times = _each(
        strategies, lambda row: f"{formatting.percent(row['test_accuracy_mean'])} in {formatting.train_time_text(row)}"
    )
    sizes = _each(strategies, lambda row: formatting.format_quantity(row["trainable_parameters"]))
    points = pd.DataFrame({"cost": strategies["trainable_parameters"], "score": strategies["test_accuracy_mean"]})
    front = ", ".join(pareto_front(points.set_index(strategies["strategy"]).dropna()))
    own = strategies.drop(columns=["runs", "recipes"])  # how much else was tried changes nothing here
    tests = runs[["strategy", "trainable_parameters", "test/accuracy"]]
    timed = ["strategy", "train_seconds", "cache_seconds", "test/accuracy"]
    dashed = "On the dashed line, the Pareto front, nothing as cheap is better."
    return [
        FigureSpec(
            "accuracy_by_strategy",
            figures.accuracy_by_strategy,
            (own, tests, data["chance"]),
            f"Dots with intervals, test accuracy by strategy: {ranking}.",
            f"Test accuracy of each chosen recipe: mean over {one}s with its 95% interval; rings are single {one}s.",
        ),
        FigureSpec(
            "accuracy_against_time",
            figures.accuracy_against_time,
            (sweep.finished[timed], runs[timed]),
            f"Scatter plot, test accuracy against training time: {times}.",
            "Bold points are the runs of the chosen recipes, pale points all other finished runs. "
            f"Up and to the left is better. {dashed}",
        ),
        FigureSpec(
            "accuracy_against_parameters",
            figures.accuracy_against_parameters,
            (own, tests),
            f"Scatter plot, test accuracy against parameters that train: {sizes}. On the Pareto front: {front}.",
            f"Means with 95% intervals; pale points are single {one}s. {dashed}",
        ),
    ]


def _of_sizes(sizes: list[DataSizeResult]) -> list[FigureSpec]:
    table = data_size_frame(sizes)
    if table["pictures"].nunique() < 2:
        return []
    told = "; ".join(
        f"{size.pictures:,} pictures: {_each(size.comparison.strategies, _of_test)}" for size in sizes if size.pictures
    )
    return [
        FigureSpec(
            "accuracy_by_size",
            figures.accuracy_by_size,
            (table,),
            f"Lines with intervals, test accuracy by number of training pictures: {told}.",
            "Test accuracy of each chosen recipe, mean with 95% interval, by the number of training pictures; a "
            "smaller number is part of a larger one, and test is the same for all.",
        )
    ]


def _of_test(row: "pd.Series[Any]") -> str:
    return formatting.percent(row["test_accuracy_mean"])


def _of_training(sweep: Sweep, comparison: Comparison, runs: pd.DataFrame) -> list[FigureSpec]:
    strategies, one, target = comparison.strategies, replicate_kind(comparison.recipes["over"]), comparison.target
    goal = formatting.format_target(target)
    best_val = _each(strategies, lambda row: formatting.percent(row["val_accuracy_mean"]))
    epochs = sweep.epochs[sweep.epochs["run"].isin(runs["run"])]
    times = times_to_target(runs, epochs, target)
    curves_of = (runs[["run", "strategy"]], epochs[["run", "epoch", "val/accuracy", "trainable_share"]])
    frozen = _each(
        strategies, lambda row: f"{formatting.percent(1 - row['frozen_block_share'], 0)} of the blocks on average"
    )
    reached = _each(strategies, lambda row: f"{row['seeds_reaching_target']} of {row['n']}")
    curves = FigureSpec(
        "learning_curves",
        figures.learning_curves,
        curves_of,
        f"Line plot, val accuracy by epoch for each strategy. Mean of the best epochs: {best_val}.",
        f"Val accuracy by epoch: mean over {one}s, the band from the worst to the best {one}. "
        "A triangle marks the first epoch in which more blocks train than before.",
    )
    to_target = FigureSpec(
        "time_to_target",
        figures.time_to_target,
        (times.drop(columns="seconds"), target),
        f"Step plot, share of runs that have reached {goal} val accuracy by epoch. Runs that did: {reached}.",
        f"Share of the chosen recipes' runs that have reached {goal} on val by each epoch (Kaplan-Meier); a "
        "cross "
        "stands where runs ended without having reached it. Lines of one share are drawn a little apart.",
    )
    schedule = FigureSpec(
        "schedule",
        figures.schedule_diagram,
        curves_of,
        f"Diagram, the share of the backbone that trains in each epoch: {frozen}.",
        "The coloured part of a band is the share of the backbone's blocks that trains, counted from the head "
        "(the edge "
        "on top, which always trains); grey is frozen.",
    )
    return [curves, to_target, schedule] if len(times) else [curves]


def _of_settings(sweep: Sweep, comparison: Comparison) -> list[FigureSpec]:
    one = replicate_kind(comparison.recipes["over"])
    rates = _each(comparison.strategies, lambda row: f"{row['lr']:g}")
    found = [
        FigureSpec(
            "rate_by_strategy",
            figures.rate_by_strategy,
            (comparison.recipes,),
            f"Heat map, val accuracy by strategy and learning rate. Chosen rates: {rates}.",
            f"Mean val accuracy over {one}s of the best recipe at each rate, over fewer where it says so; "
            "the box is the recipe that val chose among those with the most. "
            "A choice at the edge says that rates beyond it may be better still.",
        )
    ]
    finished = sweep.finished
    fields = varied_fields(finished)
    if len(fields) > 1:
        told = finished[["run", "strategy", "best/val_accuracy"]].assign(
            **{name: values(finished, name) for name in fields}
        )
        best = told.sort_values("best/val_accuracy").iloc[-1]
        through = ", ".join(f"{name} {best[name]}" for name in fields)
        found.append(
            FigureSpec(
                "parallel_coordinates",
                figures.parallel_coordinates,
                (told, fields),
                f"Parallel coordinates, a line a run through {', '.join(fields)} to val accuracy. The best: {through}.",
                "A line a finished run, in its strategy's colour, from setting to setting to val accuracy.",
            )
        )
    return found


def _of_importance(finished: pd.DataFrame, rng: np.random.Generator) -> FigureSpec | None:
    ranked = importance(finished, rng)
    if ranked is None:
        return None
    told = ", ".join(f"{row['field']} {row['points'] * 100:.1f}" for _, row in ranked.iterrows())
    return FigureSpec(
        "importance",
        figures.importance,
        (ranked,),
        f"Bars, points of val accuracy by which a forest's guess gets worse without a setting: {told}.",
        "How much worse a random forest guesses a run's val accuracy when one setting is shuffled; each run is "
        "guessed by a forest that has not seen it. What is no longer than the grey bar can't be told from chance.",
        max(2.6, 1.4 + 0.42 * len(ranked)),
    )


def _of_classes(
    sweep: Sweep, comparison: Comparison, runs: pd.DataFrame, predictions: pd.DataFrame | None, data: dict[str, Any]
) -> list[FigureSpec]:
    of_best = dict(zip(predictions["path"], predictions["label"], strict=True)) if predictions is not None else {}
    recalls = recall_frame(runs, [sweep.tested[run] for run in runs["run"] if run in sweep.tested] or [of_best])
    one, found = replicate_kind(comparison.recipes["over"]), []
    if len(recalls):  # earlier versions did not tell
        known = comparison.strategies.dropna(subset=["lowest_recall"])
        lowest = _each(known, lambda row: f"{formatting.percent(row['lowest_recall'])} of {row['lowest_recall_class']}")
        found.append(
            FigureSpec(
                "recall_by_class",
                figures.recall_by_class,
                (recalls,),
                f"Dots, recall on test by class and strategy. Lowest: {lowest}.",
                f"Recall on test of each class, mean over {one}s: the share of its pictures that were named rightly. "
                "Classes with the most test pictures come first.",
                figures.height_for(recalls["class"].nunique()),
            )
        )
    if predictions is not None:
        table = per_class.confusion(predictions, data["classes"])
        wrong = Counter(
            predictions[~predictions["correct"]][["label", "prediction"]].itertuples(index=False, name=None)
        )
        most = ", ".join(f"{label} as {other} ({count})" for (label, other), count in wrong.most_common(3))
        found.append(
            FigureSpec(
                "confusion_matrix",
                figures.confusion_matrix,
                (table,),
                f"Confusion matrix of the best run on test. Most often taken for another: {most or 'none'}.",
                "Test pictures of the best run: a row a true class, a column a predicted one, shaded by the "
                "share of the "
                "row. On the diagonal they were named rightly.",
                max(figures.HEIGHT, 2.2 + 0.32 * min(len(table), 20)),
            )
        )
    return found


def _of_confidence(best: "pd.Series[Any]") -> list[FigureSpec]:
    temperature = best.get("temperature")
    try:
        bins, errors = per_class.reliability(Path(best["path"]), None if pd.isna(temperature) else float(temperature))
    except InputError:
        return []
    told = ", ".join(f"{which} temperature scaling {error * 100:.1f} points" for which, error in errors.items())
    return [
        FigureSpec(
            "reliability",
            figures.reliability_diagram,
            (bins, errors),
            f"Reliability diagram of the best run on test. Expected calibration error: {told}.",
            "Accuracy of the best run's test pictures by confidence, in 15 bins; larger marks are more pictures. Below "
            "the diagonal it is too sure. The temperature is fitted on val.",
        )
    ]
