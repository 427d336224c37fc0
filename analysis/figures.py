"""Figures. Each function draws on the axes it is given and returns them; colours and order are the same everywhere."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter

from analysis.recipes import in_order
from analysis.repeats import unit

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart with every common colour blindness; orange and
# purple are a little darker here, so that they can be read as text on white.
COLOURS = {
    **{"scratch": "#595959", "head": "#A86200", "partial": "#0072B2", "gradual": "#B0558A"},
    **{"lpft": "#C1440E", "full": "#007A5A"},
}
MARKERS = {"scratch": "X", "head": "^", "partial": "s", "gradual": "D", "lpft": "P", "full": "o"}  # not by colour alone
DASHES = {
    **{"scratch": ":", "head": (0, (5, 1.5)), "partial": "-.", "gradual": (0, (8, 2))},
    **{"lpft": (0, (3, 1, 1, 1, 1, 1)), "full": "-"},
}
OTHER = "#000000"

# Any: matplotlib types these settings by a list of all their names.
STYLE: Any = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "pdf.fonttype": 42,  # text in the PDF stays text
    "text.parse_math": False,  # a class or sweep may have a dollar sign in its name
}
WIDTH, HEIGHT, DPI = 6.4, 4.4, 200  # inches; at this size 12 points can still be read on a phone
MOST_RATES = 9  # columns that a heat map can show


def colour(strategy: str) -> str:
    """Return a strategy's colour."""
    return COLOURS.get(strategy, OTHER)


def learning_curves(runs: pd.DataFrame, epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Draw val accuracy by epoch: a line is the mean over runs, its band goes from the worst run to the best.

    A triangle marks the first epoch in which more blocks train than before.

    Args:
        runs: the chosen recipes' runs.
        epochs: one row a run and epoch, of any runs.
    """
    curves = epochs.merge(runs[["run", "strategy"]], on="run")
    ends = []
    for strategy in in_order(curves["strategy"]):
        by_epoch = curves[curves["strategy"] == strategy].groupby("epoch")
        scores = by_epoch["val/accuracy"].agg(["mean", "min", "max"]).dropna()
        if scores.empty:
            continue
        shade, style = colour(strategy), DASHES.get(strategy, "-")
        ax.plot(scores.index, scores["mean"], color=shade, linestyle=style, linewidth=2, label=strategy)
        if len(scores) == 1:  # a line of one point is not seen
            ax.plot(scores.index, scores["mean"], color=shade, marker=MARKERS.get(strategy, "o"))
        if runs["strategy"].eq(strategy).sum() > 1:
            ax.fill_between(scores.index, scores["min"], scores["max"], color=shade, alpha=0.15, linewidth=0)
        steps = _unfreeze_epochs(by_epoch["trainable_share"].mean())
        at = scores["mean"].reindex(steps).dropna()
        ax.plot(at.index, at, linestyle="none", marker="^", markersize=11, color=shade, markeredgecolor="white")
        ends.append((strategy, float(scores.index[-1]), float(scores["mean"].iloc[-1])))
    ax.set(xlabel="epoch", ylabel="val accuracy", title="Learning curves of the chosen recipes")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(ax, "y")
    ax.margins(x=0.02)
    _label_ends(ax, ends)
    return ax


def _unfreeze_epochs(share: "pd.Series[float]") -> list[float]:
    """Return the epochs in which a larger share trains than in the epoch before."""
    grown = share.diff() > 1e-9
    return [float(epoch) for epoch in share.index[grown]]


def _label_ends(ax: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write each strategy's name at the end of its line, pushed apart where lines end close together."""
    if not ends:
        ax.text(0.5, 0.5, "no history was recorded", transform=ax.transAxes, ha="center", va="center")
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 0.065
    heights = spread_out([y for _, _, y in ends], gap, high)
    right = max(x for _, x, _ in ends)
    for (strategy, x, y), height in zip(ends, heights, strict=True):
        ax.annotate(
            strategy,
            xy=(x, y),
            xytext=(right + (ax.get_xlim()[1] - ax.get_xlim()[0]) * 0.03, height),
            color=colour(strategy),
            fontweight="bold",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour(strategy), "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )


def spread_out(values: list[float], gap: float, most: float) -> list[float]:
    """Return the values, moved so that any two are at least `gap` apart and none above `most`, their order kept."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    moved = [values[index] for index in order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    ceiling = most
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    placed = dict(zip(order, moved, strict=True))
    return [placed[index] for index in range(len(values))]


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
    if len(seconds) and seconds.min() > 0 and seconds.max() / seconds.min() > 10:
        ax.set_xscale("log")
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
    one = unit(strategies["over"])
    ax.set(xlabel=f"test accuracy, mean over {one}s with 95% interval", title="Test accuracy by strategy")
    ax.grid(visible=False, axis="y")
    if chance is not None:
        ax.axvline(chance, color="#595959", linestyle="--", linewidth=1)
        ax.text(chance, len(names) - 0.55, " chance", color="#595959", fontsize=10, va="bottom")
    percent_axis(ax, "x")
    return ax


def rate_by_strategy(recipes: pd.DataFrame, ax: Axes) -> Axes:
    """Draw val accuracy by strategy and rate: in each cell the best recipe at that rate, a box around val's choice.

    Args:
        recipes: one row a recipe, as the table of all recipes has it. More than MOST_RATES rates are put together in
            half decades.
    """
    table = recipes.dropna(subset=["lr"]).copy()
    binned = table["lr"].nunique() > MOST_RATES
    table["rate"] = _half_decade(table["lr"]) if binned else table["lr"]
    grid = table.pivot_table(index="strategy", columns="rate", values="val_accuracy_mean", aggfunc="max")
    grid = grid.reindex(in_order(grid.index)).sort_index(axis=1)
    sns.heatmap(
        grid,
        ax=ax,
        cmap="cividis",
        annot=True,
        fmt=".1%",
        linewidths=1,
        cbar_kws={
            "format": PercentFormatter(1, decimals=0),
            "label": f"val accuracy, mean over {unit(recipes['over'])}s",
        },
        annot_kws={"size": 12 if grid.shape[1] <= 5 else 9},
    )
    for row, column in np.argwhere(grid.isna().to_numpy()):
        ax.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", color="#595959", fontsize=10)
    for _, recipe in table[table["chosen"]].iterrows():
        corner = (list(grid.columns).index(recipe["rate"]), list(grid.index).index(recipe["strategy"]))
        inside = (corner[0] + 0.02, corner[1] + 0.04)
        ax.add_patch(Rectangle(inside, 0.96, 0.92, fill=False, edgecolor="#D55E00", linewidth=3, zorder=4))
    ax.set_xticks([index + 0.5 for index in range(grid.shape[1])], [f"{rate:g}" for rate in grid.columns])
    ax.tick_params(axis="both", length=0, rotation=0)
    ax.set(xlabel="learning rate of the head" + (" (in half decades)" if binned else ""), ylabel="")
    ax.set_title("Val accuracy by rate; the box is what val chose")
    ax.grid(visible=False)
    return ax


def _half_decade(rates: "pd.Series[float]") -> "pd.Series[float]":
    """Return each rate's nearest one of 1e-3, 3e-3, 1e-2, 3e-2, ... (3 stands for the square root of 10)."""
    return rates.map(lambda rate: _of_halves(round(2 * math.log10(rate))))


def _of_halves(halves: int) -> float:
    return float(f"{'3' if halves % 2 else '1'}e{halves // 2}")


def percent_axis(ax: Axes, which: str) -> None:
    """Show fractions as per cent on one axis, and nothing beyond 100%."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
    # Ticks finer than a per cent would all read alike.
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], min_n_ticks=2))
    low, high = ax.get_ylim() if which == "y" else ax.get_xlim()
    if high - low < 0.08:
        middle = (low + high) / 2
        low, high = middle - 0.04, middle + 0.04
    bounds = (max(low, -0.01), min(high, 1.01))
    if which == "y":
        ax.set_ylim(bounds)
    else:
        ax.set_xlim(bounds)


def legend_below(ax: Axes) -> None:
    """Put the legend outside the data, where it hides nothing."""
    handles, names = ax.get_legend_handles_labels()
    figure = ax.get_figure()
    if handles and figure is not None:
        figure.legend(
            handles, names, loc="outside lower center", ncols=5, frameon=False, columnspacing=1, handletextpad=0.1
        )


def new_figure(draw: Callable[[Axes], Axes], height: float = HEIGHT) -> Figure:
    """Return a figure with what `draw` draws. Nothing is registered anywhere, so nothing leaks.

    Args:
        height: in inches.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.draw_without_rendering()
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other (`path` without its ending); return both paths."""
    written = []
    for ending, options in ((".png", {"dpi": DPI}), (".pdf", {"metadata": {"CreationDate": None}})):
        target = path.with_name(path.name + ending)
        with rc_context(STYLE):
            figure.savefig(target, facecolor="white", **options)
        written.append(target)
    return written
