"""Draws prediction grids: test images with truth, prediction and confidence; errors differ by more than colour."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from analysis.figures.grid_selection import Grid
from analysis.figures.style import STYLE, replace_missing_glyphs, short_names
from finetune.data import thumbnails
from finetune.data.thumbnails import Array
from finetune.rundir.keys import THUMBNAILS

CELL_INCHES = 1.3
CORRECT, WRONG = "#00507D", "#B33C00"  # of different brightness, too; the mark and the border also differ
DASHED: Any = (0, (3, 1.2))
SIDE, ROW_HEIGHT = 0.88, 1.26  # of an image and of a row, in cells; the rest of a row is for text
LINE_HEIGHT = 0.13  # of text, in cells
MIN_COLUMNS = 5  # with fewer, the caption would be wider than the images


def find_images(grid: Grid, run_dirs: Sequence[Path], root: Path | None, archive: str = THUMBNAILS) -> dict[str, Array]:
    """Return path -> uint8 (height, width, 3) for those of the grid's images that exist.

    Thumbnails of the runs come first, so that the grid is the same on a machine that has no data.

    Args:
        root: the data folder, or None where it is unknown.
        archive: the file in a run directory that has its thumbnails.
    """
    images: dict[str, Array] = {}
    for run_dir in run_dirs:
        images = thumbnails.read_thumbnails(run_dir, archive) | images
    found = {path: images[path] for path in grid.paths if path in images}
    if root is not None:
        for path in grid.paths:
            if path not in found and (image := thumbnails.open_thumbnail_source(root, path)) is not None:
                found[path] = image
    return found


def draw_grid(grid: Grid, images: Mapping[str, Array], title: str) -> Figure:
    """Return the figure; a cell whose image is not in `images` says so."""
    columns = max(MIN_COLUMNS, *(len(cells) for cells in grid.cells.values()))
    row_height = ROW_HEIGHT + (0 if grid.by_class else LINE_HEIGHT)
    width, height = columns + 1.5, len(grid.rows) * row_height
    with rc_context(STYLE):
        figure = Figure(figsize=(width * CELL_INCHES, height * CELL_INCHES + 1.15))
        bottom, top = 0.4 / figure.get_figheight(), 1 - 0.75 / figure.get_figheight()
        ax = figure.add_axes((0.005, bottom, 0.99, top - bottom))
        ax.set(xlim=(-1.5, columns), ylim=(height, -0.03), aspect="equal")
        ax.axis("off")
        row_names = short_names(grid.rows, 30)
        shown = pd.concat([frame[["prediction", "label"]] for frame in grid.cells.values()])
        classes = short_names(sorted({str(name) for name in shown.to_numpy().ravel()}), 14)
        for row, name in enumerate(grid.rows):
            _draw_row_name(ax, row * row_height, row_names[name], grid.row_notes.get(name, ""))
            for column, (_, prediction) in enumerate(grid.cells[name].iterrows()):
                corner = (column + 0.07, row * row_height)
                _draw_image(ax, corner, images.get(prediction["path"]), bool(prediction["correct"]))
                _draw_text(ax, corner, prediction, classes, with_truth=not grid.by_class)
        edge = 0.15 / figure.get_figwidth()
        bold: Any = {"va": "top", "fontsize": 14, "fontweight": "bold"}
        figure.text(edge, 1 - 0.1 / figure.get_figheight(), replace_missing_glyphs(title), **bold)
        figure.text(edge, 1 - 0.43 / figure.get_figheight(), grid.caption, va="top", fontsize=10)
        figure.legend(handles=_legend_lines(grid.by_class), loc="lower left", ncols=2, frameon=False, fontsize=11)
    return figure


def _draw_row_name(ax: Axes, top: float, name: str, note: str) -> None:
    """Write a row's name and the note below it, to the left of its images."""
    middle = top + SIDE / 2
    text = "\n".join(wrap(name, 15)[:2])
    ax.text(-0.1, middle - 0.09, text, ha="right", va="center", fontsize=12, fontweight="bold")
    ax.text(-0.1, middle + 0.13 + 0.1 * text.count("\n"), note, ha="right", va="center", fontsize=9.5)


def _draw_image(ax: Axes, corner: tuple[float, float], image: Array | None, correct: bool) -> None:
    """Draw one image in a square, letterboxed, with its border.

    Args:
        corner: left and top of the square.
    """
    left, top = corner
    # The bars of the letterbox; below the images, which matplotlib draws before patches.
    ax.add_patch(Rectangle(corner, SIDE, SIDE, facecolor="#f1f1f1", zorder=-1))
    if image is None:
        middle: Any = {"ha": "center", "va": "center", "fontsize": 9, "color": "#595959"}
        ax.text(left + SIDE / 2, top + SIDE / 2, "image\nnot found", **middle)
    else:
        high, wide = (size / max(image.shape[:2]) * SIDE for size in image.shape[:2])
        x, y = left + (SIDE - wide) / 2, top + (SIDE - high) / 2
        ax.imshow(image, extent=(x, x + wide, y + high, y), aspect="equal", interpolation="antialiased")
    border = Rectangle(corner, SIDE, SIDE, facecolor="none", edgecolor=CORRECT, linewidth=1.5)
    if not correct:
        border.set(edgecolor=WRONG, linewidth=3, linestyle=DASHED)
    ax.add_patch(border)


def _draw_text(
    ax: Axes, corner: tuple[float, float], prediction: "pd.Series[Any]", classes: dict[str, str], with_truth: bool
) -> None:
    """Write confidence, predicted class and, `with_truth`, true class below an image.

    Args:
        corner: left and top of the image's square.
        classes: class -> its name, short enough.
    """
    correct = bool(prediction["correct"])
    confidence = "" if pd.isna(prediction["confidence"]) else f" {prediction['confidence']:.0%}"
    text = f"✓{confidence}" if correct else f"✗{confidence}\n{classes[str(prediction['prediction'])]}"
    x, y = corner[0] + SIDE / 2, corner[1] + SIDE + 0.04
    style: Any = {"ha": "center", "va": "top", "fontsize": 10}
    if with_truth:
        truth = classes[str(prediction["label"])]
        below = y + (text.count("\n") + 1) * LINE_HEIGHT
        ax.text(x, below, truth if correct else f"is {truth}", **style)
    shade, weight = (CORRECT, "normal") if correct else (WRONG, "bold")
    ax.text(x, y, text, linespacing=1.1, color=shade, fontweight=weight, **style)


def _legend_lines(by_class: bool) -> list[Line2D]:
    """Return the legend of borders and marks."""
    truth = "" if by_class else ", true class"
    wrong: Any = {"color": WRONG, "linewidth": 3, "linestyle": DASHED}
    return [
        Line2D([], [], color=CORRECT, linewidth=1.5, label=f"✓ correct: confidence{truth}"),
        Line2D([], [], label=f"✗ wrong: confidence, predicted class{truth}", **wrong),
    ]
