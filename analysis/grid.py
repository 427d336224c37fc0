"""The prediction grid: test pictures by class, with truth, prediction and confidence, right and wrong told apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.figures import STYLE
from finetune import showcase
from finetune.showcase import Array

CELL_INCHES, DPI = 1.3, 130
RIGHT, WRONG = "#00507D", "#B33C00"  # told apart by brightness too; the mark and the border differ as well
DASHED: Any = (0, (3, 1.2))
SIDE, HEIGHT = 0.88, 1.26  # of a picture and of a row, in cells; the rest of a row is for words


@dataclass(frozen=True)
class Grid:
    """What the grid shows, before it is drawn.

    Attributes:
        classes: the rows, in the data's order.
        cells: class -> its pictures' rows of the predictions, right ones first.
        recall: class -> (named rightly, pictures) over the whole test set.
        caption: how the pictures were chosen.
    """

    classes: tuple[str, ...]
    cells: dict[str, pd.DataFrame]
    recall: dict[str, tuple[int, int]]
    caption: str


def choose_pictures(predictions: pd.DataFrame, classes: list[str], seed: int = showcase.SEED) -> Grid:
    """Draw pictures of each class at random, right and wrong ones in the proportion they have in that class.

    The run drew the same ones at its end, and packed them (see finetune/showcase.py).

    Args:
        predictions: one row a test picture: path, label, prediction, confidence, correct.
        classes: in the data's order; classes without test pictures are passed over.
    """
    paths, labels, answers, confidences = (
        predictions[name].tolist() for name in ("path", "label", "prediction", "confidence")
    )
    chosen = showcase.choose(paths, labels, answers, confidences, classes, seed)
    cells = {name: predictions.iloc[rows] for name, rows in chosen.rows.items()}
    most, shown = showcase.MOST_PICTURES, len(chosen.classes)
    among = f"{shown} of the {chosen.of_classes} classes and up" if shown < chosen.of_classes else "Up"
    caption = (
        f"{among} to {most} test pictures a class, drawn at random, "
        "right and wrong ones in the proportion they have in that class; the most confident first."
    )
    return Grid(chosen.classes, cells, chosen.recall, caption)


def find_pictures(grid: Grid, run_dir: Path, root: Path | None) -> dict[str, Array]:
    """Return path -> uint8 (height, width, 3) of the grid's pictures, as far as there are any.

    The run's own thumbnails come first, so that the grid is the same with the data at hand and without.

    Args:
        root: the data folder, or None where it is not known.
    """
    paths = [str(path) for rows in grid.cells.values() for path in rows["path"]]
    packed = showcase.read_thumbnails(run_dir)
    found = {path: packed[path] for path in paths if path in packed}
    if root is not None:
        for path in (path for path in paths if path not in found):
            picture = showcase.open_picture(root, path)
            if picture is not None:
                found[path] = picture
    return found


def draw_grid(grid: Grid, pictures: Mapping[str, Array], title: str) -> Figure:
    """Return the figure; a cell whose picture is not in `pictures` says so."""
    columns = max(5, *(len(rows) for rows in grid.cells.values()))  # 5: else the caption is wider than the pictures
    width, height = columns + 1.5, len(grid.classes) * HEIGHT
    with rc_context(STYLE):
        figure = Figure(figsize=(width * CELL_INCHES, height * CELL_INCHES + 1.15))
        top = 1 - 0.75 / figure.get_figheight()
        ax = figure.add_axes((0.005, 0.4 / figure.get_figheight(), 0.99, top - 0.4 / figure.get_figheight()))
        ax.set(xlim=(-1.5, columns), ylim=(height, -0.03), aspect="equal")
        ax.axis("off")
        for row, name in enumerate(grid.classes):
            right, total = grid.recall[name]
            middle = row * HEIGHT + SIDE / 2
            ax.text(-0.1, middle - 0.09, shortened(name, 15), ha="right", va="center", fontsize=12, fontweight="bold")
            ax.text(-0.1, middle + 0.13, f"{right} of {total} right", ha="right", va="center", fontsize=9.5)
            for column, (_, answer) in enumerate(grid.cells[name].iterrows()):
                _draw_cell(ax, column + 0.07, row * HEIGHT, pictures.get(answer["path"]), answer)
        edge = 0.15 / figure.get_figwidth()
        figure.text(edge, 1 - 0.1 / figure.get_figheight(), drawable(title), va="top", fontsize=14, fontweight="bold")
        figure.text(edge, 1 - 0.43 / figure.get_figheight(), grid.caption, va="top", fontsize=10)
        figure.legend(handles=_key(), loc="lower left", ncols=2, frameon=False, fontsize=11)
    return figure


def _draw_cell(ax: Axes, left: float, top: float, picture: Array | None, answer: "pd.Series[Any]") -> None:
    """Draw one picture in a square, letterboxed, with its border and words."""
    # What a picture leaves free of the square; below the pictures, which matplotlib draws before patches.
    ax.add_patch(Rectangle((left, top), SIDE, SIDE, facecolor="#f1f1f1", zorder=-1))
    if picture is None:
        ax.text(
            left + SIDE / 2, top + SIDE / 2, "picture\nnot found", ha="center", va="center", fontsize=9, color="#595959"
        )
    else:
        high, wide = picture.shape[0] / max(picture.shape[:2]) * SIDE, picture.shape[1] / max(picture.shape[:2]) * SIDE
        x, y = left + (SIDE - wide) / 2, top + (SIDE - high) / 2
        ax.imshow(picture, extent=(x, x + wide, y + high, y), aspect="equal", interpolation="antialiased")
    right = bool(answer["correct"])
    border = Rectangle((left, top), SIDE, SIDE, facecolor="none", edgecolor=RIGHT, linewidth=1.5)
    if not right:
        border.set(edgecolor=WRONG, linewidth=3, linestyle=DASHED)
    ax.add_patch(border)
    sure = "" if pd.isna(answer["confidence"]) else f" {answer['confidence']:.0%}"
    words = f"✓{sure}" if right else f"✗{sure}\n{shortened(answer['prediction'], 14)}"
    ax.text(
        left + SIDE / 2,
        top + SIDE + 0.04,
        words,
        ha="center",
        va="top",
        fontsize=10,
        linespacing=1.1,
        color=RIGHT if right else WRONG,
        fontweight="normal" if right else "bold",
    )


def _key() -> list[Line2D]:
    """Return what the borders and marks mean."""
    return [
        Line2D([], [], color=RIGHT, linewidth=1.5, label="✓ right, with its confidence"),
        Line2D(
            [],
            [],
            color=WRONG,
            linewidth=3,
            linestyle=DASHED,
            label="✗ wrong: confidence and what it was taken for",
        ),
    ]


def shortened(name: str, most: int) -> str:
    """Return a class name that fits, in signs that can be drawn."""
    name = drawable(name.replace("_", " "))
    return name if len(name) <= most else f"{name[: most - 1]}…"


def drawable(text: str) -> str:
    """Return the text with a box for every sign that the font lacks; matplotlib would warn at each one."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(sign if ord(sign) in known else "□" for sign in text)


def save_grid(figure: Figure, path: Path) -> None:
    """Write the grid as PNG."""
    with rc_context(STYLE):
        figure.savefig(path, dpi=DPI, facecolor="white")
