"""Val accuracy by the settings of a sweep."""

import math

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from analysis.tables.arms import sort_arms
from analysis.tables.recipes import CHANCE, replicate_kind

MAX_RATES = 9  # columns that can be read in the heat map


def rate_by_strategy(recipes: pd.DataFrame, ax: Axes) -> Axes:
    """Draw val accuracy by strategy and rate: each cell has the best recipe at that rate; a box marks the chosen one.

    More than MAX_RATES rates are binned in half decades.

    Args:
        recipes: one row per recipe, see `Comparison.recipes`.
    """
    table = recipes.dropna(subset=["lr"]).copy()
    binned = table["lr"].nunique() > MAX_RATES
    table["rate"] = _half_decade(table["lr"]) if binned else table["lr"]
    # A mean over fewer runs was no candidate; its cell says how many runs it has.
    fewer = table["n"] < table.groupby("arm")["n"].transform("max")
    table["text"] = table["val_accuracy_mean"].map("{:.1%}".format) + ("\n" + table["over"]).where(fewer, "")
    best = table.sort_values("val_accuracy_mean").drop_duplicates(["arm", "rate"], keep="last")
    grid, texts = (
        best.pivot(index="arm", columns="rate", values=name).reindex(sort_arms(table["arm"]))
        for name in ("val_accuracy_mean", "text")
    )
    sns.heatmap(
        grid,
        ax=ax,
        cmap="cividis",
        annot=texts,
        fmt="",
        linewidths=1,
        cbar_kws={
            "format": PercentFormatter(1, decimals=0),
            "label": f"val accuracy, mean over {replicate_kind(recipes['over'])}s",
        },
        annot_kws={"size": 12 if grid.shape[1] <= 5 else 9},
    )
    for row, column in np.argwhere(grid.isna().to_numpy()):
        ax.text(column + 0.5, row + 0.5, "not run", ha="center", va="center", color="#595959", fontsize=10)
    for _, recipe in table[table["chosen"]].iterrows():
        corner = (list(grid.columns).index(recipe["rate"]), list(grid.index).index(recipe["arm"]))
        inside = (corner[0] + 0.02, corner[1] + 0.04)
        ax.add_patch(Rectangle(inside, 0.96, 0.92, fill=False, edgecolor="#D55E00", linewidth=3, zorder=4))
    ax.set_xticks([index + 0.5 for index in range(grid.shape[1])], [f"{rate:g}" for rate in grid.columns])
    ax.tick_params(axis="both", length=0, rotation=0)
    ax.set(xlabel="learning rate of the head" + (" (in half decades)" if binned else ""), ylabel="")
    ax.set_title("Val accuracy by learning rate (boxes: chosen)")
    ax.grid(visible=False)
    return ax


def _half_decade(rates: "pd.Series[float]") -> "pd.Series[float]":
    """Return the nearest of 1e-3, 3e-3, 1e-2, 3e-2, ... to each rate (3 stands for the square root of 10)."""
    halves = rates.map(lambda rate: round(2 * math.log10(rate)))
    return halves.map(lambda half: float(f"{'3' if half % 2 else '1'}e{half // 2}"))


def importance_bars(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the permutation importance of each setting for val accuracy; seed and fold, which are chance, in grey.

    Args:
        data: field, points (mean over repetitions), low and high, see `setting_importance`.
    """
    shown = data.iloc[::-1].reset_index(drop=True)
    for height, (_, row) in enumerate(shown.iterrows()):
        shade = "#b9b9b9" if row["field"] in CHANCE else "#0072B2"
        ax.barh(height, row["points"] * 100, color=shade, height=0.6)
        ax.plot([row["low"] * 100, row["high"] * 100], [height, height], color="#333333", linewidth=1.5)
    labels = [f"{name} (chance)" if name in CHANCE else name for name in shown["field"]]
    ax.set_yticks(range(len(shown)), labels)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(xlabel="permutation importance (points of val accuracy)", title="Importance of settings for val accuracy")
    ax.grid(visible=False, axis="y")
    return ax
