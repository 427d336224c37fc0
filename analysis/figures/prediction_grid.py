"""The prediction grid: test pictures by class, with truth, prediction and confidence, right and wrong told apart."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.drawn import KEY
from analysis.figures.grid_selection import Grid
from analysis.figures.style import STYLE, drawable, shortened
from finetune.data import thumbnails
from finetune.data.thumbnails import Array
from finetune.rundir.keys import THUMBNAILS
from finetune.system.atomic import replacing

CELL_INCHES, DPI = 1.3, 130
RIGHT, WRONG = "#00507D", "#B33C00"  # told apart by brightness too; the mark and the border differ as well
DASHED: Any = (0, (3, 1.2))
SIDE, HEIGHT = 0.88, 1.26  # of a picture and of a row, in cells; the rest of a row is for words
LINE = 0.13  # of words, in cells


def find_images(grid: Grid, run_dir: Path, root: Path | None, archive: str = THUMBNAILS) -> dict[str, Array]:
    """Return path -> uint8 (height, width, 3) of the grid's pictures, as far as there are any.

    The run's own thumbnails come first, so that the grid is the same with the data at hand and without.

    Args:
        root: the data folder, or None where it is not known.
        archive: the file that the run's thumbnails are in.
    """
    paths = [str(path) for rows in grid.cells.values() for path in rows["path"]]
    packed = thumbnails.read_thumbnails(run_dir, archive)
    found = {path: packed[path] for path in paths if path in packed}
    if root is not None:
        for path in (path for path in paths if path not in found):
            picture = thumbnails.open_thumbnail_source(root, path)
            if picture is not None:
                found[path] = picture
    return found


def draw_grid(grid: Grid, pictures: Mapping[str, Array], title: str) -> Figure:
    """Return the figure; a cell whose picture is not in `pictures` says so."""
    columns = max(5, *(len(rows) for rows in grid.cells.values()))  # 5: else the caption is wider than the pictures
    row_height = HEIGHT + (0 if grid.by_class else LINE)
    width, height = columns + 1.5, len(grid.classes) * row_height
    with rc_context(STYLE):
        figure = Figure(figsize=(width * CELL_INCHES, height * CELL_INCHES + 1.15))
        top = 1 - 0.75 / figure.get_figheight()
        ax = figure.add_axes((0.005, 0.4 / figure.get_figheight(), 0.99, top - 0.4 / figure.get_figheight()))
        ax.set(xlim=(-1.5, columns), ylim=(height, -0.03), aspect="equal")
        ax.axis("off")
        for row, name in enumerate(grid.classes):
            middle = row * row_height + SIDE / 2
            words = "\n".join(wrap(shortened(name, 30), 15)[:2])
            ax.text(-0.1, middle - 0.09, words, ha="right", va="center", fontsize=12, fontweight="bold")
            told = grid.beside.get(name, "")
            ax.text(-0.1, middle + 0.13 + 0.1 * words.count("\n"), told, ha="right", va="center", fontsize=9.5)
            for column, (_, answer) in enumerate(grid.cells[name].iterrows()):
                place = (column + 0.07, row * row_height)
                _draw_cell(ax, *place, pictures.get(answer["path"]), answer, not grid.by_class)
        edge = 0.15 / figure.get_figwidth()
        figure.text(edge, 1 - 0.1 / figure.get_figheight(), drawable(title), va="top", fontsize=14, fontweight="bold")
        figure.text(edge, 1 - 0.43 / figure.get_figheight(), grid.caption, va="top", fontsize=10)
        figure.legend(handles=_key(grid.by_class), loc="lower left", ncols=2, frameon=False, fontsize=11)
    return figure


def _draw_cell(
    ax: Axes, left: float, top: float, picture: Array | None, answer: "pd.Series[Any]", with_truth: bool
) -> None:
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
    if with_truth:
        truth = shortened(answer["label"], 14)
        lines = words.count("\n") + 1
        told = truth if right else f"is {truth}"
        ax.text(left + SIDE / 2, top + SIDE + 0.04 + lines * LINE, told, ha="center", va="top", fontsize=10)
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


def _key(by_class: bool) -> list[Line2D]:
    """Return what the borders and marks mean."""
    truth = "" if by_class else ", and what it is"
    return [
        Line2D([], [], color=RIGHT, linewidth=1.5, label=f"✓ right, with its confidence{truth}"),
        Line2D(
            [],
            [],
            color=WRONG,
            linewidth=3,
            linestyle=DASHED,
            label=f"✗ wrong: confidence, what it was taken for{truth}",
        ),
    ]


def save_grid(figure: Figure, path: Path, key: str = "") -> None:
    """Write the grid as PNG.

    Args:
        key: what it was drawn from (see synthetic_images.py).
    """
    with rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="white", format="png", metadata={KEY: key})
