"""Which test images the prediction grids show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from finetune.data import thumbnails


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


def choose_images(predictions: pd.DataFrame, classes: list[str], seed: int = thumbnails.SEED) -> Grid:
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


MAX_ROWS, ROW = 4, 8  # of a grid that is not by class


def choose_confident_errors(predictions: pd.DataFrame) -> Grid | None:
    """Return the wrong answers that the run was surest of; None where there are none."""
    wrong = predictions[~predictions["correct"]].dropna(subset=["confidence"])
    caption = "The wrong answers that it was surest of, the surest first: labels that are wrong are often among them."
    return _arrange_rows(wrong.sort_values(["confidence", "path"], ascending=[False, True]), "surest errors", caption)


def choose_least_confident(predictions: pd.DataFrame) -> Grid | None:
    """Return the answers that the run was least sure of, right or wrong; None where confidences are not known."""
    known = predictions.dropna(subset=["confidence"]).sort_values(["confidence", "path"])
    caption = (
        "The answers that it was least sure of, right or wrong, the least sure first: pictures to label or look at."
    )
    return _arrange_rows(known, "least sure", caption)


def _arrange_rows(answers: pd.DataFrame, name: str, caption: str) -> Grid | None:
    """Return a grid of the first answers, whose rows go on from one to the next."""
    if answers.empty:
        return None
    parts = [answers.iloc[first : first + ROW] for first in range(0, min(len(answers), MAX_ROWS * ROW), ROW)]
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
