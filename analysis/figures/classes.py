"""Recall by class and strategy, and the confusion matrix of the best run."""

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import HEIGHT, add_legend_below, colour, marker, set_percent_axis, short_names
from analysis.tables.arms import sort_arms

MAX_CLASSES = 20  # rows whose names can be read on a page
ROW_INCHES, REST_INCHES = 0.3, 1.5  # of a class; of title, axis and legend together


def recall_by_class(data: pd.DataFrame, ax: Axes) -> Axes:
    """Draw recall on test: one row per class, the one with most test images on top, and one mark per strategy.

    Of more than MAX_CLASSES, those with the lowest recall are shown: overall accuracy hides them.

    Args:
        data: strategy, class, recall (mean over runs) and support (test images), see `recall_frame`.
    """
    by_class = data.groupby("class").agg(recall=("recall", "mean"), support=("support", "first")).reset_index()
    shown = by_class.sort_values(["recall", "class"]).head(MAX_CLASSES)
    shown = shown.sort_values(["support", "class"], ascending=[False, True], ignore_index=True)
    strategies = sort_arms(data["arm"])
    table = data.pivot_table(index="class", columns="arm", values="recall").reindex(shown["class"])
    for height, (_, recalls) in enumerate(table.iterrows()):
        ax.plot([recalls.min(), recalls.max()], [height, height], color="#d0d0d0", linewidth=2, zorder=1)
    gap = min(0.3, 0.65 / len(strategies))
    for number, strategy in enumerate(strategies):
        # Side by side within the row: marks of equal recall would hide each other.
        offset = gap * (number - (len(strategies) - 1) / 2)
        ax.scatter(
            table[strategy],
            [height + offset for height in range(len(table))],
            s=28,
            marker=marker(strategy),
            color=colour(strategy),
            edgecolors="white",
            linewidths=0.5,
            label=strategy,
            zorder=3,
        )
    short = short_names(map(str, shown["class"]), 22)
    names = [_row_name(short[str(row["class"])], int(row["support"])) for _, row in shown.iterrows()]
    ax.set_yticks(range(len(names)), names, fontsize=10)
    ax.set_ylim(len(names) - 0.4, -0.6)  # the first class on top
    ax.set_xlim(-0.02, 1.02)
    set_percent_axis(ax, "x")
    ax.set(xlabel="recall on test (n: test images of the class)", title=_title(len(shown), len(by_class)))
    add_legend_below(ax)
    return ax


def confusion_matrix(table: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the confusion matrix: rows are true classes, shaded by the share of the row, with the numbers of images.

    Of more than MAX_CLASSES, the rows and columns of those with the lowest recall are shown.

    Args:
        table: numbers of test images; rows are true classes, columns predicted ones, both in the data's order.
    """
    totals = table.sum(axis=1)
    shares = table.div(totals.where(totals > 0), axis=0)
    names = list(table.index)
    if len(names) > MAX_CLASSES:
        recalls = pd.Series({name: shares.at[name, name] if name in shares else 0.0 for name in names})
        lowest = set(recalls.sort_values(kind="stable").index[:MAX_CLASSES])
        names = [name for name in names if name in lowest]
    shown = shares.reindex(index=names, columns=names)
    counts = table.reindex(index=names, columns=names).fillna(0).astype(int)
    shares_shown = shown.to_numpy(dtype=float)
    ax.imshow(shares_shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    size = 11 if len(names) <= 10 else 7
    for row in range(len(names)):
        for column in range(len(names)):
            count = int(counts.iloc[row, column])  # type: ignore[arg-type]
            if count:
                dark = shares_shown[row, column] > 0.55
                weight = "bold" if row == column else "normal"
                ax.text(
                    column, row, str(count), ha="center", va="center", fontsize=size, fontweight=weight,
                    color="white" if dark else "#1c1c1c",
                )  # fmt: skip
    labels = list(short_names(map(str, names), 14).values())
    ax.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=10)
    ax.set_yticks(range(len(names)), labels, fontsize=10)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    which = "" if len(names) == len(table) else f": the {len(names)} classes with the lowest recall"
    ax.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix of the best run{which}")
    return ax


def height_for(classes: int) -> float:
    """Return the height in inches of a figure with so many classes."""
    return max(HEIGHT, REST_INCHES + ROW_INCHES * min(classes, MAX_CLASSES))


def _row_name(name: str, support: int) -> str:
    """Return a class with its number of test images, which is 0 where predictions are missing."""
    return name + (f" (n={support})" if support else "")


def _title(shown: int, classes: int) -> str:
    return "Recall by class" if shown == classes else f"Recall by class: the lowest {shown} of {classes}"
