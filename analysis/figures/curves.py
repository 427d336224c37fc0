"""Val accuracy by epoch: learning curves, and the share of runs that reached a target."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.figures.style import colour, dash, marker, set_percent_axis, spread_out
from analysis.formatting import format_target
from analysis.tables.arms import sort_arms
from analysis.tables.target import reached_curve


def learning_curves(runs: pd.DataFrame, epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Draw val accuracy by epoch: mean over runs, and a band from the worst run to the best.

    A triangle marks each epoch in which more blocks train than in the epoch before.

    Args:
        runs: the chosen recipes' runs.
        epochs: one row per run and epoch, of any runs.
    """
    curves = epochs.merge(runs[["run", "arm"]], on="run")
    ends = []
    for strategy in sort_arms(curves["arm"]):
        of_arm = curves[curves["arm"] == strategy]
        by_epoch = of_arm.groupby("epoch")
        # A run that was stopped early keeps its last value: the mean of those that went on would be too high.
        by_run = of_arm.pivot_table(index="epoch", columns="run", values="val/accuracy").ffill()
        scores = by_run.agg(["mean", "min", "max"], axis=1).dropna()
        if scores.empty:
            continue
        shade, style = colour(strategy), dash(strategy)
        ax.plot(scores.index, scores["mean"], color=shade, linestyle=style, linewidth=2, label=strategy)
        if len(scores) == 1:  # a line of one point is invisible
            ax.plot(scores.index, scores["mean"], color=shade, marker=marker(strategy))
        if runs["arm"].eq(strategy).sum() > 1:
            ax.fill_between(scores.index, scores["min"], scores["max"], color=shade, alpha=0.15, linewidth=0)
        steps = _unfreeze_epochs(by_epoch["trainable_share"].mean())
        marks = scores["mean"].reindex(steps).dropna()
        ax.plot(marks.index, marks, linestyle="none", marker="^", markersize=11, color=shade, markeredgecolor="white")
        ends.append((strategy, float(scores.index[-1]), float(scores["mean"].iloc[-1])))
    ax.set(xlabel="epoch", ylabel="val accuracy", title="Learning curves of the chosen recipes")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    set_percent_axis(ax, "y")
    ax.margins(x=0.02)
    _label_ends(ax, ends)
    return ax


def _unfreeze_epochs(share: "pd.Series[float]") -> list[float]:
    """Return the epochs in which a larger share of the blocks trains than in the epoch before."""
    grown = share.diff() > 1e-9
    return [float(epoch) for epoch in share.index[grown]]


def _label_ends(ax: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write each strategy's name at the end of its line; names are moved apart where lines end close together.

    Args:
        ends: strategy, x and y of the end of its line.
    """
    if not ends:
        ax.text(0.5, 0.5, "no history was recorded", transform=ax.transAxes, ha="center", va="center")
        return
    low, high = ax.get_ylim()
    gap = (high - low) * 0.065
    heights = spread_out([y for _, _, y in ends], gap, high)
    right = max(x for _, x, _ in ends)
    beside = right + (ax.get_xlim()[1] - ax.get_xlim()[0]) * 0.03
    # relpos: from the name's left edge, as a line from its middle would cross the names below.
    line: Any = {"arrowstyle": "-", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
    style: Any = {"fontweight": "bold", "va": "center", "annotation_clip": False}
    for (strategy, x, y), height in zip(ends, heights, strict=True):
        shade = colour(strategy)
        arrow = {**line, "color": shade}
        ax.annotate(strategy, xy=(x, y), xytext=(beside, height), color=shade, arrowprops=arrow, **style)


def time_to_target(times: pd.DataFrame, target: float, ax: Axes) -> Axes:
    """Draw the share of runs that have reached the target by each epoch.

    A line ends with its longest run; a cross at its end: some runs ended without reaching the target.

    Args:
        times: of the chosen recipes' runs, see `times_to_target`.
        target: val accuracy.
    """
    last = float(times["epochs"].max()) if len(times) else 1.0
    names = sort_arms(times["arm"])
    ends = []
    for number, strategy in enumerate(names):
        group = times[times["arm"] == strategy]
        curve = reached_curve(group["epochs"], group["reached"])
        offset = 0.012 * (number - (len(names) - 1) / 2)  # lines at equal shares would hide each other
        steps = [*curve.epochs, last if curve.share[-1] == 1 else curve.until]
        shares = [*curve.share, curve.share[-1]]
        heights = [share + offset for share in shares]
        shade, style = colour(strategy), dash(strategy)
        ax.step(steps, heights, where="post", color=shade, linestyle=style, linewidth=2.2, label=strategy)
        if not group["reached"].all():
            ax.plot(steps[-1], heights[-1], marker="x", markersize=9, markeredgewidth=2, color=shade, linestyle="none")
        ends.append((strategy, steps[-1], heights[-1]))
    ax.set_ylim(-0.06, 1.06)
    ax.set(
        xlabel="epoch",
        ylabel=f"runs at {format_target(target)} val accuracy",
        title=f"Epochs to {format_target(target)} val accuracy",
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.margins(x=0.02)
    _label_ends(ax, ends)
    return ax
