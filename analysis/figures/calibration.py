"""Calibration of the best run: accuracy by confidence."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import add_legend_below

STYLES = {"before": ("#A86200", "o", "--"), "after": ("#0072B2", "s", "-")}
NAMES = {"before": "before temperature scaling", "after": "after temperature scaling"}


def reliability_diagram(bins: pd.DataFrame, errors: dict[str, float], ax: Axes) -> Axes:
    """Draw accuracy against confidence, before and after temperature scaling; on the diagonal both agree.

    Args:
        bins: which (before, after), confidence and accuracy (means of a bin), images; empty bins left out.
        errors: before, after -> expected calibration error, a fraction.
    """
    ax.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=":")
    largest = max(bins["images"].max(), 1)
    for which in errors:
        shade, marker, dash = STYLES[which]
        rows = bins[bins["which"] == which]
        label = f"{NAMES[which]}: error {errors[which] * 100:.1f} points"
        ax.plot(rows["confidence"], rows["accuracy"], color=shade, linestyle=dash, linewidth=1.5, zorder=2)
        sizes = 18 + 160 * rows["images"] / largest
        ax.scatter(
            rows["confidence"], rows["accuracy"], s=sizes, color=shade, marker=marker, alpha=0.85,
            edgecolors="white", label=label, zorder=3,
        )  # fmt: skip
    ax.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy")
    ax.set_title("Calibration of the best run")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    add_legend_below(ax, columns=1)  # inside the axes it would hide points
    return ax
