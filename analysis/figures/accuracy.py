"""Test accuracy: by strategy, against time, against how much trains."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.figures.style import MARKERS, colour, legend_below, log_axis, percent_axis
from analysis.formatting import format_quantity, in_order
from analysis.stats.pareto import pareto_front
from analysis.tables.replicates import replicate_kind


def accuracy_by_strategy(strategies: pd.DataFrame, runs: pd.DataFrame, chance: float | None, ax: Axes) -> Axes:
    """Draw the mean test accuracy of each chosen recipe with its 95% interval, and each run as a small ring.

    Args:
        strategies: one row a strategy, as the comparison table has it.
        runs: the chosen recipes' runs.
        chance: accuracy of guessing, in [0, 1]; None where the number of classes is unknown.
    """
    names = list(strategies["strategy"])
    for height, (_, row) in enumerate(strategies.iterrows()):
        name, middle = str(row["strategy"]), row["test_accuracy_mean"]
        shade = colour(name)
        ax.plot([row["test_accuracy_low"], row["test_accuracy_high"]], [height, height], color=shade, linewidth=3)
        ax.plot(middle, height, marker=MARKERS.get(name, "o"), color=shade, markersize=10, markeredgecolor="white")
        single = runs[runs["strategy"] == name]["test/accuracy"]
        if len(single) > 1:
            ax.plot(single, [height + 0.22] * len(single), "o", markersize=5, markerfacecolor="none", color=shade)
        ax.annotate(
            f"{middle:.1%}",
            (middle, height),
            (0, 9),
            textcoords="offset points",
            ha="center",
            color=shade,
            weight="bold",
        )
    ax.set_yticks(
        range(len(names)), [f"{name}\n({over})" for name, over in zip(names, strategies["over"], strict=True)]
    )
    ax.set_ylim(len(names) - 0.5, -0.6)  # the first strategy on top, as in the table
    one = replicate_kind(strategies["over"])
    ax.set(xlabel=f"test accuracy, mean over {one}s with 95% interval", title="Test accuracy by strategy")
    ax.grid(visible=False, axis="y")
    if chance is not None:
        ax.axvline(chance, color="#595959", linestyle="--", linewidth=1)
        ax.text(chance, len(names) - 0.55, " chance", color="#595959", fontsize=10, va="bottom")
    percent_axis(ax, "x")
    return ax


def accuracy_against_time(runs: pd.DataFrame, chosen: pd.DataFrame, ax: Axes) -> Axes:
    """Draw test accuracy against training time: a pale point each finished run, a bold one each chosen run.

    Filling caches is left out: which run comes first, and does that for the others, says nothing of its recipe.

    Args:
        runs: all finished runs.
        chosen: those of the chosen recipes.
    """
    seconds = _own_seconds(runs).dropna()
    unit, size = _time_unit(float(seconds.max()) if len(seconds) else 0.0)
    for strategy in in_order(runs["strategy"]):
        of_it = runs[runs["strategy"] == strategy]
        best = chosen[chosen["strategy"] == strategy]
        style: Any = {"marker": MARKERS.get(strategy, "o"), "color": colour(strategy)}
        ax.scatter(_own_seconds(of_it) / size, of_it["test/accuracy"], s=28, alpha=0.3, linewidths=0, **style)
        ax.scatter(
            _own_seconds(best) / size,
            best["test/accuracy"],
            s=80,
            edgecolors="white",
            linewidths=0.8,
            label=strategy,
            zorder=3,
            **style,
        )
    means = pd.DataFrame({"cost": _own_seconds(chosen) / size, "score": chosen["test/accuracy"]})
    _draw_front(means.groupby(chosen["strategy"]).mean().dropna(), ax)
    if len(seconds) and seconds.min() > 0 and seconds.max() / seconds.min() > 10:
        log_axis(ax)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set(
        xlabel=f"training time of a run ({unit}, filling caches left out)",
        ylabel="test accuracy",
        title="Accuracy against training time",
    )
    percent_axis(ax, "y")
    legend_below(ax)
    return ax


def _own_seconds(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return each run's training time without filling caches."""
    return runs["train_seconds"] - runs["cache_seconds"].fillna(0.0)


def _time_unit(most_seconds: float) -> tuple[str, float]:
    """Return the unit that suits these times, and how many seconds it has."""
    if most_seconds < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if most_seconds < 3 * 3600 else ("hours", 3600.0)


def accuracy_against_parameters(strategies: pd.DataFrame, runs: pd.DataFrame, ax: Axes) -> Axes:
    """Draw test accuracy against the share of parameters that train at the end, with the Pareto front.

    Args:
        strategies: one row a strategy, as the comparison table has it.
        runs: the chosen recipes' runs.
    """
    for _, row in strategies.iterrows():
        name = str(row["strategy"])
        style: Any = {"marker": MARKERS.get(name, "o"), "color": colour(name)}
        count, middle = row["trainable_parameters"], row["test_accuracy_mean"]
        single = runs[runs["strategy"] == name]
        ax.scatter(single["trainable_parameters"], single["test/accuracy"], s=28, alpha=0.3, linewidths=0, **style)
        ax.plot([count, count], [row["test_accuracy_low"], row["test_accuracy_high"]], color=colour(name), linewidth=2)
        ax.scatter(count, middle, s=90, edgecolors="white", linewidths=0.8, label=name, zorder=3, **style)
    points = pd.DataFrame({"cost": strategies["trainable_parameters"], "score": strategies["test_accuracy_mean"]})
    _draw_front(points.set_index(strategies["strategy"]).dropna(), ax)
    counts = strategies["trainable_parameters"].dropna()
    if len(counts) and counts.min() > 0 and counts.max() / counts.min() > 10:
        log_axis(ax)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_quantity(value)))
    ax.set(
        xlabel="parameters that train in the last epoch",
        ylabel="test accuracy, mean with 95% interval",
        title="Accuracy against how much trains",
    )
    percent_axis(ax, "y")
    legend_below(ax)
    return ax


def _draw_front(points: pd.DataFrame, ax: Axes) -> None:
    """Join the means of the front's strategies: what lies below the line costs more, or is worse, than some on it."""
    front = points.loc[pareto_front(points)]
    if len(front) > 1:
        ax.plot(
            front["cost"],
            front["score"],
            color="#777777",
            linewidth=1.2,
            linestyle="--",
            zorder=2,
            label="Pareto front",
        )
