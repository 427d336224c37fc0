"""How far the best run's confidences can be believed."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import legend_below

STYLES = {"before": ("#A86200", "o", "--"), "after": ("#0072B2", "s", "-")}
NAMES = {"before": "as the network says", "after": "after temperature scaling"}


def reliability_diagram(bins: pd.DataFrame, errors: dict[str, float], ax: Axes) -> Axes:
    """Draw accuracy against confidence, before and after temperature scaling; on the diagonal both agree.

    Args:
        bins: which (before, after), confidence and accuracy (means of a bin), pictures; empty bins left out.
        errors: which -> expected calibration error.
    """
    ax.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=":")
    most = max(bins["pictures"].max(), 1)
    for which in errors:
        shade, marker, dash = STYLES[which]
        rows = bins[bins["which"] == which]
        label = f"{NAMES[which]}: error {errors[which] * 100:.1f} points"
        ax.plot(rows["confidence"], rows["accuracy"], color=shade, linestyle=dash, linewidth=1.5, zorder=2)
        sizes = 18 + 160 * rows["pictures"] / most
        ax.scatter(
            rows["confidence"], rows["accuracy"], s=sizes, color=shade, marker=marker, alpha=0.85,
            edgecolors="white", label=label, zorder=3,
        )  # fmt: skip
    ax.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="share named rightly")
    ax.set_title("Can confidences be believed?")
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_below(ax, columns=1)  # in the plot, it hides points wherever a network is too sure or too unsure
    return ax
