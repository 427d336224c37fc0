"""Val accuracy as training goes on: learning curves, and the way to a target."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analysis.figures.style import DASHES, MARKERS, colour, percent_axis, spread_out
from analysis.formatting import format_target, in_order
from analysis.stats.survival import kaplan_meier


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
            # From the name's left edge: from its middle, a line would cross the names below.
            arrowprops={
                "arrowstyle": "-",
                "color": colour(strategy),
                "linewidth": 0.8,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def time_to_target(times: pd.DataFrame, target: float, ax: Axes) -> Axes:
    """Draw the share of runs that have reached the target, epoch by epoch (Kaplan and Meier).

    A line ends where its longest run does; a cross there counts runs that ended without having reached the target.

    Args:
        times: of the chosen recipes' runs, as `survival.times_to_target` has it.
        target: val accuracy.
    """
    last = float(times["epochs"].max()) if len(times) else 1.0
    names = in_order(times["strategy"])
    ends = []
    for number, strategy in enumerate(names):
        group = times[times["strategy"] == strategy]
        curve = kaplan_meier(group["epochs"], group["reached"])
        aside = 0.012 * (number - (len(names) - 1) / 2)  # lines of one share would hide each other
        steps = [0.0, *curve.at, last if curve.share[-1] == 1 else curve.until]
        shares = [0.0, *curve.share, curve.share[-1]]
        heights = [share + aside for share in shares]
        shade = colour(strategy)
        ax.step(
            steps,
            heights,
            where="post",
            color=shade,
            linestyle=DASHES.get(strategy, "-"),
            linewidth=2.2,
            label=strategy,
        )
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
