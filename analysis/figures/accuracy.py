"""Test accuracy by strategy, and against training time."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from analysis.figures.style import add_legend_below, colour, marker, set_log_axis, set_percent_axis
from analysis.stats.pareto import pareto_front
from analysis.stats.tests import ALPHA
from analysis.tables.arms import sort_arms
from analysis.tables.recipes import replicate_kind


def accuracy_by_strategy(strategies: pd.DataFrame, runs: pd.DataFrame, chance: float | None, ax: Axes) -> Axes:
    """Draw the mean test accuracy of each chosen recipe with its 95% interval, and each run as a small ring.

    Args:
        strategies: one row a strategy, as the comparison table has it.
        runs: the chosen recipes' runs.
        chance: accuracy of random guesses, in [0, 1]; None where the number of classes is unknown.
    """
    names = list(strategies["arm"])
    for height, (_, row) in enumerate(strategies.iterrows()):
        name, mean = str(row["arm"]), row["test_accuracy_mean"]
        style: Any = {"color": colour(name)}
        ax.plot([row["test_accuracy_low"], row["test_accuracy_high"]], [height, height], linewidth=3, **style)
        ax.plot(mean, height, marker=marker(name), markersize=10, markeredgecolor="white", **style)
        of_runs = runs[runs["arm"] == name]["test/accuracy"]
        if len(of_runs) > 1:
            ax.plot(of_runs, [height + 0.22] * len(of_runs), "o", markersize=5, markerfacecolor="none", **style)
        above: Any = {"textcoords": "offset points", "ha": "center", "weight": "bold", **style}
        ax.annotate(f"{mean:.1%}", (mean, height), (0, 9), **above)
    ax.set_yticks(
        range(len(names)), [f"{name}\n({over})" for name, over in zip(names, strategies["over"], strict=True)]
    )
    ax.set_ylim(len(names) - 0.5, -0.6)  # the first strategy on top, as in the table
    kind = replicate_kind(strategies["over"])
    ax.set(xlabel=f"test accuracy, mean over {kind}s with 95% interval", title="Test accuracy by strategy")
    ax.grid(visible=False, axis="y")
    if chance is not None:
        ax.axvline(chance, color="#595959", linestyle="--", linewidth=1)
        ax.text(chance, len(names) - 0.55, " chance", color="#595959", fontsize=10, va="bottom")
    set_percent_axis(ax, "x")
    return ax


def differences_to_candidate(arms: pd.DataFrame, candidate: str, margin: float, ax: Axes) -> Axes:
    """Draw a forest plot: each other arm's difference to the candidate in test accuracy, with its 95% interval.

    Args:
        arms: rows of the chosen recipes.
        margin: a loss that is accepted for a lower cost, a fraction; drawn as a band.
    """
    others = arms[arms["arm"] != candidate]
    for height, (_, row) in enumerate(others.iterrows()):
        name, value = str(row["arm"]), row["difference"] * 100
        style: Any = {"color": colour(name)}
        if pd.notna(row["difference_low"]):
            ends = [row["difference_low"] * 100, row["difference_high"] * 100]
            ax.plot(ends, [height, height], linewidth=3, solid_capstyle="butt", **style)
        ax.plot(value, height, marker=marker(name), markersize=10, markeredgecolor="white", **style)
        star = "*" if row["difference_p"] < ALPHA else ""
        text: Any = {"textcoords": "offset points", "ha": "center", "weight": "bold", **style}
        ax.annotate(f"{value:+.1f}{star}", (value, height), (0, 9), **text)
    ax.axvline(0, color="#333333", linewidth=1.2)
    ax.axvspan(-margin * 100, 0, color="#000000", alpha=0.07, linewidth=0)
    ax.set_yticks(range(len(others)), list(others["arm"]))
    ax.set_ylim(len(others) - 0.5, -0.7)
    ax.set(xlabel="difference in test accuracy (points, 95% interval)", title=f"Differences to {candidate}")
    ax.grid(visible=False, axis="y")
    return ax


def accuracy_against_time(runs: pd.DataFrame, chosen: pd.DataFrame, ax: Axes) -> Axes:
    """Draw test accuracy against training time: a pale point for each run, a bold one for runs of chosen recipes.

    The time that a run spent filling caches is left out: the first run does that for all others, whatever its recipe.

    Args:
        runs: all finished runs.
        chosen: those of the chosen recipes.
    """
    seconds = _own_seconds(runs).dropna()
    unit, size = _time_unit(float(seconds.max()) if len(seconds) else 0.0)
    for strategy in sort_arms(runs["arm"]):
        every, best = (table[table["arm"] == strategy] for table in (runs, chosen))
        style: Any = {"marker": marker(strategy), "color": colour(strategy)}
        bold: Any = {"s": 80, "edgecolors": "white", "linewidths": 0.8, "zorder": 3, **style}
        ax.scatter(_own_seconds(every) / size, every["test/accuracy"], s=28, alpha=0.3, linewidths=0, **style)
        ax.scatter(_own_seconds(best) / size, best["test/accuracy"], label=strategy, **bold)
    means = pd.DataFrame({"cost": _own_seconds(chosen) / size, "score": chosen["test/accuracy"]})
    _draw_front(means.groupby(chosen["arm"]).mean().dropna(), ax)
    if len(seconds) and seconds.min() > 0 and seconds.max() / seconds.min() > 10:
        set_log_axis(ax)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set(
        xlabel=f"training time of a run ({unit}, filling caches left out)",
        ylabel="test accuracy",
        title="Accuracy against training time",
    )
    set_percent_axis(ax, "y")
    add_legend_below(ax)
    return ax


def _own_seconds(runs: pd.DataFrame) -> "pd.Series[float]":
    """Return each run's training time without filling caches."""
    return runs["train_seconds"] - runs["cache_seconds"].fillna(0.0)


def _time_unit(longest: float) -> tuple[str, float]:
    """Return the unit that suits times up to `longest` seconds, and how many seconds it has."""
    if longest < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _draw_front(points: pd.DataFrame, ax: Axes) -> None:
    """Join the means on the Pareto front: a strategy below the line is no cheaper than one on it, and less accurate."""
    front = points.loc[pareto_front(points)]
    if len(front) > 1:
        line: Any = {"color": "#777777", "linewidth": 1.2, "linestyle": "--", "zorder": 2}
        ax.plot(front["cost"], front["score"], label="Pareto front", **line)
