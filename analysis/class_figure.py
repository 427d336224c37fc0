"""The figure of recall by class, drawn like the others (see figures.py)."""

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures import HEIGHT, MARKERS, colour, legend_below, percent_axis
from analysis.grid import shortened
from analysis.recipes import in_order

MOST_CLASSES = 20  # rows whose names can be read on a page
ROW_INCHES, REST_INCHES = 0.3, 1.5  # of a class; of title, axis and legend


def recall_by_class(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw recall on test: a row a class, the one with most test pictures on top, and a mark a strategy.

    Of more than MOST_CLASSES, those with the lowest recall are shown: there is what a mean over all pictures hides.

    Args:
        data: strategy, class, recall (mean over runs) and support (test pictures), as `by_class.recall_frame` has it.
    """
    by_class = data.groupby("class").agg(recall=("recall", "mean"), support=("support", "first")).reset_index()
    shown = by_class.sort_values(["recall", "class"]).head(MOST_CLASSES)
    shown = shown.sort_values(["support", "class"], ascending=[False, True], ignore_index=True)
    strategies = in_order(data["strategy"])
    table = data.pivot_table(index="class", columns="strategy", values="recall").reindex(shown["class"])
    for height, (_, recalls) in enumerate(table.iterrows()):
        ax.plot([recalls.min(), recalls.max()], [height, height], color="#d0d0d0", linewidth=2, zorder=1)
    apart = min(0.3, 0.65 / len(strategies))
    for number, strategy in enumerate(strategies):
        # Side by side within the row: marks of one recall would hide each other.
        aside = apart * (number - (len(strategies) - 1) / 2)
        ax.scatter(
            table[strategy],
            [height + aside for height in range(len(table))],
            s=28,
            marker=MARKERS.get(strategy, "o"),
            color=colour(strategy),
            edgecolors="white",
            linewidths=0.5,
            label=strategy,
            zorder=3,
        )
    names = [_name(str(row["class"]), int(row["support"])) for _, row in shown.iterrows()]
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.set_ylim(len(names) - 0.4, -0.6)  # the first class on top
    ax.set_xlim(-0.02, 1.02)
    percent_axis(ax, "x")
    ax.set(xlabel="recall on test (n: test pictures of the class)", title=_title(len(shown), len(by_class)))
    legend_below(ax)
    return ax


def height_for(classes: int) -> float:
    """Return the height in inches that a figure of so many classes needs."""
    return max(HEIGHT, REST_INCHES + ROW_INCHES * min(classes, MOST_CLASSES))


def _name(name: str, support: int) -> str:
    """Return a class as its row names it; where predictions are missing, its pictures are not known."""
    return shortened(name, 22) + (f" (n={support})" if support else "")


def _title(shown: int, classes: int) -> str:
    return "Recall by class" if shown == classes else f"Recall by class: the lowest {shown} of {classes}"
