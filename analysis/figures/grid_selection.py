"""Which test images the prediction grids show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from finetune.data import thumbnails

MAX_ROWS, ROW_IMAGES = 4, 8  # of a grid whose rows are not classes


@dataclass(frozen=True)
class Grid:
    """The images of a grid and their predictions.

    Attributes:
        rows: the name of each row; in a grid by class the classes, in the data's order.
        cells: row -> the predictions of its images, from left to right.
        recall: class -> (correctly classified, images) over the complete test set; empty in other grids.
        caption: how the images were chosen.
        row_notes: row -> text below its name.
        by_class: whether a row is a class; otherwise the true class is written below each image.
    """

    rows: tuple[str, ...]
    cells: dict[str, pd.DataFrame]
    recall: dict[str, tuple[int, int]]
    caption: str
    row_notes: Mapping[str, str] = field(default_factory=dict)
    by_class: bool = True

    @property
    def paths(self) -> list[str]:
        """The paths of the images, each once."""
        return list(dict.fromkeys(str(path) for cells in self.cells.values() for path in cells["path"]))


def choose_images(predictions: pd.DataFrame, classes: list[str], seed: int = thumbnails.SEED) -> Grid:
    """Choose images of each class at random, with its share of errors.

    The run chose the same images at its end, and stored thumbnails of them (see finetune/data/thumbnails.py).

    Args:
        predictions: one row per test image: path, label, prediction, confidence, correct.
        classes: in the data's order; classes without test images are skipped.
    """
    paths, labels, predicted, confidences = (
        predictions[name].tolist() for name in ("path", "label", "prediction", "confidence")
    )
    chosen = thumbnails.choose_grid_images(paths, labels, predicted, confidences, classes, seed)
    cells = {name: predictions.iloc[rows] for name, rows in chosen.rows.items()}
    shown = len(chosen.classes)
    which = f"{shown} of the {chosen.of_classes} classes and up" if shown < chosen.of_classes else "Up"
    caption = (
        f"{which} to {thumbnails.MAX_IMAGES} test images per class, chosen at random with each class's share of "
        "errors; correct ones first, then by confidence."
    )
    row_notes = {name: f"{correct} of {total} correct" for name, (correct, total) in chosen.recall.items()}
    return Grid(chosen.classes, cells, chosen.recall, caption, row_notes)


def choose_confident_errors(predictions: pd.DataFrame) -> Grid | None:
    """Return the errors with the highest confidence; None where there are no errors."""
    errors = predictions[~predictions["correct"]].dropna(subset=["confidence"])
    caption = "The errors with the highest confidence. Wrong labels are often among them."
    ordered = errors.sort_values(["confidence", "path"], ascending=[False, True])
    return _arrange_rows(ordered, "most confident errors", caption)


def choose_least_confident(predictions: pd.DataFrame) -> Grid | None:
    """Return the predictions with the lowest confidence; None where confidences are unknown."""
    ordered = predictions.dropna(subset=["confidence"]).sort_values(["confidence", "path"])
    caption = "The predictions with the lowest confidence, correct or not: candidates for a review by a person."
    return _arrange_rows(ordered, "least confident", caption)


def _arrange_rows(predictions: pd.DataFrame, name: str, caption: str) -> Grid | None:
    """Return a grid of the first predictions, row by row."""
    if predictions.empty:
        return None
    cells = {}
    for first in range(0, min(len(predictions), MAX_ROWS * ROW_IMAGES), ROW_IMAGES):
        part = predictions.iloc[first : first + ROW_IMAGES]
        cells[f"{name} {first + 1}–{first + len(part)}"] = part
    return Grid(tuple(cells), cells, {}, caption, by_class=False)


def choose_differing(ours: pd.DataFrame, theirs: pd.DataFrame, names: tuple[str, str]) -> Grid | None:
    """Return the images of which exactly one of two runs predicts the class; None where there are none.

    Two rows for each run that is correct: its predictions, highest confidence first, and below the other run's.

    Args:
        names: of our strategy, and of theirs.
    """
    both = ours.merge(theirs, on=["path", "label"], suffixes=("", "_theirs"))
    both = both[both["prediction"] != both["prediction_theirs"]]
    swapped = both.drop(columns=["prediction", "confidence", "correct"]).rename(
        columns={f"{name}_theirs": name for name in ("prediction", "confidence", "correct")}
    )
    cells, row_notes = {}, {}
    for correct, incorrect, (name, other_name) in ((both, swapped, names), (swapped, both, names[::-1])):
        only = correct[correct["correct"]].sort_values(["confidence", "path"], ascending=[False, True])
        if only.empty:
            continue
        leading = only.head(ROW_IMAGES)
        first, second = f"only {name} is correct", f"{other_name} on the same"
        cells[first], cells[second] = leading, incorrect.loc[leading.index]
        row_notes[first] = f"{len(only)} of {len(both)}"
    caption = (
        f"The two runs differ on {len(both)} test images; shown are those that one of them classifies correctly, "
        "highest confidence first."
    )
    return Grid(tuple(cells), cells, {}, caption, row_notes, by_class=False) if cells else None
