"""The unfreeze schedules of the chosen recipes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from analysis.figures.style import colour
from analysis.tables.arms import sort_arms

FROZEN = "#ececec"


def schedule_diagram(runs: pd.DataFrame, epochs: pd.DataFrame, ax: Axes) -> Axes:
    """Draw one band per strategy, by epoch: the coloured part of its height is the share of blocks that trains.

    The head, which always trains, is the edge on top of each band.

    Args:
        runs: the chosen recipes' runs.
        epochs: one row per run and epoch, of any runs.
    """
    rows = epochs.merge(runs[["run", "arm"]], on="run")
    names = sort_arms(rows["arm"])
    band_height = 0.74
    for band, strategy in enumerate(names):
        shares = rows[rows["arm"] == strategy].groupby("epoch")["trainable_share"].mean()
        shade = colour(strategy)
        for epoch, share in zip(map(float, shares.index), shares, strict=True):
            for height, fill in ((band_height, FROZEN), (band_height * share, shade)):
                ax.add_patch(Rectangle((epoch - 1, band), 1, height, facecolor=fill, edgecolor="white", linewidth=0.8))
        ax.plot([0, float(shares.index.max())], [band, band], color=shade, linewidth=4, solid_capstyle="butt")
        changes = shares[shares.diff().fillna(1.0).abs() > 1e-9]
        for epoch, share in zip(map(float, changes.index), changes, strict=True):
            inside = share > 0.25
            ax.text(
                epoch - 0.95,
                band + (band_height * share / 2 if inside else band_height * (share + 1) / 2),
                f"{share:.0%}",
                va="center",
                fontsize=10,
                color="white" if inside else "#333333",
                clip_on=True,
            )
    last = float(rows["epoch"].max()) if len(rows) else 1.0
    ax.set(xlim=(0, last), ylim=(len(names) - 0.15, -0.25), xlabel="epochs finished", title="Unfreeze schedules")
    ax.set_yticks([band + band_height / 2 for band in range(len(names))], names)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)
    return ax
