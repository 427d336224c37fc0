"""The prediction grid: test pictures by class, with truth, prediction and confidence, right and wrong told apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from analysis.figures.style import STYLE
from analysis.lettering import drawable, shortened
from finetune.data import thumbnails
from finetune.data.thumbnails import Array
from finetune.rundir.keys import THUMBNAILS
from finetune.system.atomic import replacing

CELL_INCHES, DPI = 1.3, 130
RIGHT, WRONG = "#00507D", "#B33C00"  # told apart by brightness too; the mark and the border differ as well
DASHED: Any = (0, (3, 1.2))
SIDE, HEIGHT = 0.88, 1.26  # of a picture and of a row, in cells; the rest of a row is for words
LINE = 0.13  # of words, in cells


@dataclass(frozen=True)
class Grid:
    """What the grid shows, before it is drawn.

    Attributes:
        classes: the rows, in the data's order.
        cells: class -> its pictures' rows of the predictions, right ones first.
        recall: class -> (named rightly, pictures) over the whole test set.
        caption: how the pictures were chosen.
        beside: row -> what stands below its name.
        by_class: whether a row is a class; else each picture says what it is.
    """

    classes: tuple[str, ...]
    cells: dict[str, pd.DataFrame]
    recall: dict[str, tuple[int, int]]
    caption: str
    beside: Mapping[str, str] = field(default_factory=dict)
    by_class: bool = True

    @property
    def size(self) -> int:
        """How many different pictures there are."""
        return len({path for rows in self.cells.values() for path in rows["path"]})


def choose_pictures(predictions: pd.DataFrame, classes: list[str], seed: int = thumbnails.SEED) -> Grid:
    """Draw pictures of each class at random, right and wrong ones in the proportion they have in that class.

    The run drew the same ones at its end, and packed them (see finetune/data/thumbnails.py).

    Args:
        predictions: one row a test picture: path, label, prediction, confidence, correct.
        classes: in the data's order; classes without test pictures are passed over.
    """
    paths, labels, answers, confidences = (
        predictions[name].tolist() for name in ("path", "label", "prediction", "confidence")
    )
    chosen = thumbnails.choose_grid_images(paths, labels, answers, confidences, classes, seed)
    cells = {name: predictions.iloc[rows] for name, rows in chosen.rows.items()}
    most, shown = thumbnails.MOST_PICTURES, len(chosen.classes)
    among = f"{shown} of the {chosen.of_classes} classes and up" if shown < chosen.of_classes else "Up"
    caption = (
        f"{among} to {most} test pictures a class, drawn at random, "
        "right and wrong ones in the proportion they have in that class; the most confident first."
    )
    beside = {name: f"{right} of {total} right" for name, (right, total) in chosen.recall.items()}
    return Grid(chosen.classes, cells, chosen.recall, caption, beside)


MOST_ROWS, ROW = 4, 8  # of a grid that is not by class


def choose_confident_errors(predictions: pd.DataFrame) -> Grid | None:
    """Return the wrong answers that the run was surest of; None where there are none."""
    wrong = predictions[~predictions["correct"]].dropna(subset=["confidence"])
    caption = "The wrong answers that it was surest of, the surest first: labels that are wrong are often among them."
    return _in_rows(wrong.sort_values(["confidence", "path"], ascending=[False, True]), "surest errors", caption)


def choose_least_confident(predictions: pd.DataFrame) -> Grid | None:
    """Return the answers that the run was least sure of, right or wrong; None where confidences are not known."""
    known = predictions.dropna(subset=["confidence"]).sort_values(["confidence", "path"])
    caption = (
        "The answers that it was least sure of, right or wrong, the least sure first: pictures to label or look at."
    )
    return _in_rows(known, "least sure", caption)


def _in_rows(answers: pd.DataFrame, name: str, caption: str) -> Grid | None:
    """Return a grid of the first answers, whose rows go on from one to the next."""
    if answers.empty:
        return None
    parts = [answers.iloc[first : first + ROW] for first in range(0, min(len(answers), MOST_ROWS * ROW), ROW)]
    places = [f"{name} {index * ROW + 1}–{index * ROW + len(part)}" for index, part in enumerate(parts)]
    return Grid(tuple(places), dict(zip(places, parts, strict=True)), {}, caption, by_class=False)


def choose_differing(ours: pd.DataFrame, theirs: pd.DataFrame, names: tuple[str, str]) -> Grid | None:
    """Return the pictures on which two runs answer differently: only ours right, only theirs right, both wrong.

    The surest first; the answers shown are ours in the first row, theirs in the others. None where they agree on all.
    """
    both = ours.merge(theirs, on=["path", "label"], suffixes=("", "_theirs"))
    both = both[both["prediction"] != both["prediction_theirs"]]
    if both.empty:
        return None
    swapped = both.drop(columns=["prediction", "confidence", "correct"]).rename(
        columns={f"{name}_theirs": name for name in ("prediction", "confidence", "correct")}
    )
    rows = {
        f"only {names[0]} is right": both[both["correct"]],
        f"{names[1]} says of these": swapped[both["correct"]],
        f"only {names[1]} is right": swapped[both["correct_theirs"]],
        f"{names[0]} says of these": both[both["correct_theirs"]],
    }
    cells, beside = {}, {}
    for first, second in (tuple(rows)[:2], tuple(rows)[2:]):
        leading = rows[first].sort_values(["confidence", "path"], ascending=[False, True]).head(ROW)
        if leading.empty:
            continue
        cells[first], cells[second] = leading, rows[second].loc[leading.index]
        beside[first] = f"{len(rows[first])} of {len(both)}"
    caption = f"Of {len(both)} test pictures on which they differ, those where one is right, the surest first."
    return Grid(tuple(cells), cells, {}, caption, beside, by_class=False) if cells else None


def find_pictures(grid: Grid, run_dir: Path, root: Path | None, archive: str = THUMBNAILS) -> dict[str, Array]:
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
        key: what it was drawn from (see drawn.py).
    """
    with rc_context(STYLE), replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="white", format="png", metadata={KEY: key})
