"""Chooses the test images that a run shows, and stores thumbnails of them with it.

A run chooses at its end exactly the images that the prediction grid of `analysis` will show, so the grid can be drawn
on a machine that has no data. This file loads neither torch nor pandas.
"""

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from finetune.data.images.image_io import UNREADABLE, read_small
from finetune.rundir.keys import PREDICTIONS, PROBABILITY, THUMBNAILS
from finetune.system.atomic import replacing
from finetune.system.tables import read_table

SEED = 0  # of the choice: the same predictions always give the same images
MAX_CLASSES, MAX_IMAGES = 10, 8  # rows and columns that can be looked at in one image
THUMBNAIL_PX = 160  # longest side
QUALITY = 85
THUMBNAIL_SUFFIX = ".jpg"  # added to every path, so that no two images share an entry
MAX_ARCHIVE_BYTES, MAX_ENTRY_BYTES = 8 * 2**20, 2**18  # a thumbnail takes some 8 kB, and there are at most 80

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class GridSelection:
    """The images that stand for a run's predictions.

    Attributes:
        classes: the classes shown, in the data's order.
        rows: class -> positions of its images in the predictions, correct ones first, the most confident first.
        recall: class -> (correctly classified, images) over the whole test set.
        of_classes: the number of classes that have test images.
    """

    classes: tuple[str, ...]
    rows: dict[str, list[int]]
    recall: dict[str, tuple[int, int]]
    of_classes: int


def choose_grid_images(
    paths: Sequence[str],
    labels: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    classes: Sequence[str],
    seed: int = SEED,
) -> GridSelection:
    """Draw images of each class at random, correct and wrong ones in the proportion they have in that class.

    The draw does not depend on the order of the predictions; their confidence only orders the drawn images.

    Args:
        paths, labels, predictions, confidences: one of each a test image; a confidence may be NaN.
        classes: in the data's order; classes without test images are passed over.
    """
    rng = np.random.default_rng(seed)
    of_class: dict[str, list[int]] = {}
    for row in sorted(range(len(paths)), key=lambda row: paths[row]):
        of_class.setdefault(labels[row], []).append(row)
    ordered = [name for name in classes if name in of_class] + sorted(set(of_class) - set(classes))
    shown = ordered
    if len(ordered) > MAX_CLASSES:
        shown = [ordered[index] for index in sorted(rng.choice(len(ordered), MAX_CLASSES, replace=False))]

    def draw(pool: list[int], count: int) -> list[int]:
        drawn = [pool[index] for index in rng.choice(len(pool), count, replace=False)] if count else []
        return sorted(drawn, key=lambda row: (_last_if_unknown(confidences[row]), paths[row]))

    rows, recall = {}, {}
    for name in shown:
        correct = [row for row in of_class[name] if predictions[row] == name]
        wrong = [row for row in of_class[name] if predictions[row] != name]
        recall[name] = (len(correct), len(of_class[name]))
        room = min(MAX_IMAGES, len(of_class[name]))
        # Rounded up or down by chance, so that over all classes neither side is favoured.
        wrong_count = int(room * len(wrong) / len(of_class[name]) + rng.random())
        wrong_count = min(max(wrong_count, room - len(correct)), len(wrong), room)
        rows[name] = [*draw(correct, room - wrong_count), *draw(wrong, wrong_count)]
    return GridSelection(tuple(shown), rows, recall, len(ordered))


def _last_if_unknown(confidence: float) -> float:
    """Return a key that sorts the most confident first and the unknown last."""
    return math.inf if math.isnan(confidence) else -confidence


def write_thumbnails(run_dir: Path, root: Path, classes: Sequence[str]) -> None:
    """Write `thumbnails.zip`: a JPEG of each image that the prediction grid will show, as far as it can be read.

    Args:
        run_dir: holds predictions.csv.
        root: of the data, which the paths in predictions.csv start from.
        classes: in the data's order.
    """
    table = read_table(run_dir / PREDICTIONS)
    paths, labels, predictions = ([row[name] for row in table] for name in ("path", "label", "prediction"))
    confidences = [float(row[PROBABILITY + row["prediction"]]) for row in table]
    chosen = choose_grid_images(paths, labels, predictions, confidences, classes)
    shown = [paths[row] for name in chosen.classes for row in chosen.rows[name]]
    opened = ((path, open_thumbnail_source(root, path)) for path in shown)
    pack_thumbnails(run_dir / THUMBNAILS, ((path, image) for path, image in opened if image is not None))


def pack_thumbnails(file: Path, images: Iterable[tuple[str, Array]]) -> None:
    """Write images (path, uint8 (height, width, 3)) as `read_thumbnails` reads them, atomically."""
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path, image in images:
            packed = io.BytesIO()
            Image.fromarray(image).save(packed, "JPEG", quality=QUALITY)
            # An entry without the time of day: equal runs write equal files.
            archive.writestr(zipfile.ZipInfo(path + THUMBNAIL_SUFFIX), packed.getvalue())


def open_thumbnail_source(root: Path, path: str) -> Array | None:
    """Return a thumbnail as uint8 (height, width, 3) in its own proportions and the right way up, or None.

    None: the image is missing, unreadable, or outside the data folder.
    """
    if not is_inside(path):
        return None
    try:
        return np.asarray(read_small(root / path, THUMBNAIL_PX))
    except UNREADABLE:
        return None


def read_thumbnails(run_dir: Path, name: str = THUMBNAILS) -> dict[str, Array]:
    """Return path -> uint8 (height, width, 3) of the images in `thumbnails.zip`, or in another such file.

    The file may come from anywhere: nothing is unpacked to the disk, and entries larger than a thumbnail are not read.
    """
    file = run_dir / name
    thumbnails: dict[str, Array] = {}
    try:
        if file.stat().st_size > MAX_ARCHIVE_BYTES:
            return thumbnails
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.namelist() if entry.endswith(THUMBNAIL_SUFFIX)]
            for entry in entries[: MAX_CLASSES * MAX_IMAGES]:
                image = _decode(archive, entry)
                if image is not None:
                    thumbnails[entry.removesuffix(THUMBNAIL_SUFFIX)] = image
    except Exception:  # zipfile raises many kinds for a damaged file
        return thumbnails
    return thumbnails


def _decode(archive: zipfile.ZipFile, entry: str) -> Array | None:
    """Return one entry as an image, or None if it is none or too large to be a thumbnail."""
    try:
        with archive.open(entry) as packed:
            content = packed.read(MAX_ENTRY_BYTES + 1)  # whatever size the archive claims
        if len(content) > MAX_ENTRY_BYTES:
            return None
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if max(image.size) > THUMBNAIL_PX:  # known before anything is decoded
                return None
            return np.asarray(image.convert("RGB"))
    except Exception:  # encrypted, unknown or truncated entries: zipfile and Pillow raise many kinds
        return None


def is_inside(path: str) -> bool:
    """Whether a relative path stays inside the folder it starts from."""
    relative = PurePosixPath(path)
    return not relative.is_absolute() and ".." not in relative.parts
