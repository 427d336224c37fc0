"""What more training pictures do."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from analysis.figures.style import DASHES, MARKERS, colour, legend_below, log_axis, percent_axis
from analysis.formatting import in_order


def accuracy_by_size(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw mean test accuracy with its 95% interval by the number of training pictures, a line a strategy.

    Args:
        data: strategy, pictures, accuracy, low and high, as `sizes.size_frame` has it.
    """
    names = in_order(data["strategy"])
    for number, strategy in enumerate(names):
        rows = data[data["strategy"] == strategy].sort_values("pictures")
        style: Any = {"color": colour(strategy), "marker": MARKERS.get(strategy, "o")}
        # A little apart: intervals at the same number of pictures would hide each other.
        at = rows["pictures"] * (1 + 0.02 * (number - (len(names) - 1) / 2))
        ax.plot(at, rows["accuracy"], linestyle=DASHES.get(strategy, "-"), linewidth=1.8, markersize=8, label=strategy,
                markeredgecolor="white", **style)  # fmt: skip
        ax.vlines(at, rows["low"], rows["high"], color=colour(strategy), linewidth=2)
    counts = sorted(set(data["pictures"]))
    log_axis(ax)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.set(xlabel="training pictures", ylabel="test accuracy, mean with 95% interval", title="Accuracy by data size")
    percent_axis(ax, "y")
    legend_below(ax)
    return ax
