"""Test accuracy by the size of the training set."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.figures.style import add_legend_below, colour, dash, marker, set_log_axis, set_percent_axis
from analysis.tables.arms import sort_arms


def accuracy_by_size(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw mean test accuracy with its 95% interval by the number of training images, one line per strategy.

    Args:
        data: strategy, images, accuracy, low and high, see `data_size_frame`.
    """
    names = sort_arms(data["arm"])
    for number, strategy in enumerate(names):
        rows = data[data["arm"] == strategy].sort_values("images")
        style: Any = {"color": colour(strategy), "marker": marker(strategy)}
        # A little apart: intervals at the same number of images would hide each other.
        x = rows["images"] * (1 + 0.02 * (number - (len(names) - 1) / 2))
        ax.plot(x, rows["accuracy"], linestyle=dash(strategy), linewidth=1.8, markersize=8, label=strategy,
                markeredgecolor="white", **style)  # fmt: skip
        ax.vlines(x, rows["low"], rows["high"], color=colour(strategy), linewidth=2)
    counts = sorted(set(data["images"]))
    set_log_axis(ax)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.set(
        xlabel="training images", ylabel="test accuracy, mean with 95% interval", title="Accuracy by training-set size"
    )
    set_percent_axis(ax, "y")
    add_legend_below(ax)
    return ax
