"""What the settings of a sweep did to val accuracy."""

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from analysis.figures.style import colour
from analysis.formatting import in_order
from analysis.tables.replicates import replicate_kind

WHITE: Any = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
MOST_RATES = 9  # columns that a heat map can show


def rate_by_strategy(recipes: pd.DataFrame, ax: Axes) -> Axes:
    """Draw val accuracy by strategy and rate: in each cell the best recipe at that rate, a box around val's choice.

    Args:
        recipes: one row a recipe, as the table of all recipes has it. More than MOST_RATES rates are put together in
            half decades.
    """
    table = recipes.dropna(subset=["lr"]).copy()
    binned = table["lr"].nunique() > MOST_RATES
    table["rate"] = _half_decade(table["lr"]) if binned else table["lr"]
    # A mean over fewer runs does not compete, and says how many it is over.
    fewer = table["n"] < table.groupby("strategy")["n"].transform("max")
    table["told"] = table["val_accuracy_mean"].map("{:.1%}".format) + ("\n" + table["over"]).where(fewer, "")
    best = table.sort_values("val_accuracy_mean").drop_duplicates(["strategy", "rate"], keep="last")
    grid, told = (
        best.pivot(index="strategy", columns="rate", values=name).reindex(in_order(table["strategy"]))
        for name in ("val_accuracy_mean", "told")
    )
    sns.heatmap(
        grid,
        ax=ax,
        cmap="cividis",
        annot=told,
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


def parallel_coordinates(runs: pd.DataFrame, swept: list[str], ax: Axes) -> Axes:
    """Draw a line a run through the values of what the sweep varied, to its val accuracy.

    Args:
        runs: all finished runs.
        swept: the fields that differ among them (see importance.swept).
    """
    order = sorted(range(len(runs)), key=lambda row: runs["best/val_accuracy"].iloc[row])
    places = {name: _places(runs[name]) for name in swept}
    scores = runs["best/val_accuracy"].astype(float)
    low, high = float(scores.min()), float(scores.max())
    heights = (scores - low) / (high - low) if high > low else scores * 0 + 0.5
    ys = np.column_stack([*(places[name][0] for name in swept), heights])[order]
    lines = [np.column_stack([np.arange(ys.shape[1]), row]) for row in ys]
    shades = [colour(str(runs["strategy"].iloc[row])) for row in order]
    ax.add_collection(LineCollection(lines, colors=shades, alpha=0.55, linewidths=1.2))
    for axis, name in enumerate(swept):
        ax.axvline(axis, color="#444444", linewidth=1)
        for label, height in places[name][1]:
            style: Any = {"ha": "right", "va": "center", "fontsize": 9.5, "bbox": WHITE}
            ax.annotate(label, (axis, height), (-5, 0), textcoords="offset points", **style)
    ax.axvline(len(swept), color="#444444", linewidth=1)
    for share in (0, 0.5, 1):
        text = f"{low + share * (high - low):.1%}"
        ax.annotate(text, (len(swept), share), (5, 0), textcoords="offset points", ha="left", va="center", fontsize=9.5)
    ax.set_xticks(range(len(swept) + 1), [*swept, "val accuracy"])
    ax.set_yticks([])
    ax.set(xlim=(-0.55, len(swept) + 0.35), ylim=(-0.06, 1.06), title="Every run, through its settings to val accuracy")
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def _places(values: "pd.Series[Any]") -> "tuple[pd.Series[float], list[tuple[str, float]]]":
    """Return each value's height in [0, 1], equally far apart in their order, and the labels (some of many)."""
    texts = values.map(lambda value: "none" if value is None or value != value else value)
    if texts.map(lambda value: isinstance(value, int | float) and not isinstance(value, bool)).all():
        known = sorted(set(texts))
        labels = [f"{value:g}" for value in known]
    else:
        texts = texts.map(str)
        known = in_order(texts)
        labels = [text if len(text) <= 18 else text[:17] + "…" for text in known]
    step = 1 / max(len(known) - 1, 1)
    heights = {value: index * step if len(known) > 1 else 0.5 for index, value in enumerate(known)}
    every = max(1, -(-len(known) // 12))
    return texts.map(heights), [(label, index * step) for index, label in enumerate(labels) if index % every == 0]


def importance(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw how much val accuracy is lost to a forest's guess when it may not know a setting.

    Args:
        data: field, points (mean over repetitions), low and high; as `importance.importance` has it.
    """
    shown = data.iloc[::-1].reset_index(drop=True)
    for height, (_, row) in enumerate(shown.iterrows()):
        noise = row["field"] in ("seed", "fold")
        ax.barh(height, row["points"] * 100, color="#b9b9b9" if noise else "#0072B2", height=0.6)
        ax.plot([row["low"] * 100, row["high"] * 100], [height, height], color="#333333", linewidth=1.5)
    labels = [f"{name} (chance)" if name in ("seed", "fold") else name for name in shown["field"]]
    ax.set_yticks(range(len(shown)), labels)
    ax.axvline(0, color="#444444", linewidth=1)
    ax.set(xlabel="points of val accuracy by which a forest's guess gets worse", title="What val accuracy depends on")
    ax.grid(visible=False, axis="y")
    return ax
