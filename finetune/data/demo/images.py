"""The demo's data: synthetic images that this project draws itself, the same for a seed, kept in the user's cache.

Two tasks that share no class: ten things to fine-tune on, few images of each; and 24 others, drawn in memory, on
which the demo's network is pretrained (see finetune/models/demo_weights.py).
"""

import shutil
import sys
import uuid
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finetune.data.demo.paint import paint
from finetune.data.demo.shapes import TARGET_SHAPES
from finetune.data.demo.source_shapes import SOURCE_SHAPES
from finetune.system.atomic import raising_write_error, replacing
from finetune.system.environment import cache_folder

DEMO_VERSION = "1"  # to be raised whenever the images change
DEMO_SEED = 20
IMAGE_PX = 80
TARGET_CLASSES = tuple(TARGET_SHAPES)
SOURCE_CLASSES = tuple(SOURCE_SHAPES)
TARGET_MESS, SOURCE_MESS = 0.9, 0.5  # see paint.paint; for the source an upper limit
SPLITS = {"train": 30, "val": 12, "test": 40}  # images of each class


def demo_folder() -> Path:
    """Return the folder with the target task's images, drawn first (in a few seconds) if it is incomplete.

    It is drawn under a temporary name and renamed, so it is complete or absent, and several processes can draw at once.

    Raises:
        WriteError: the disk is full, for example.
    """
    folder = cache_folder() / f"demo-pictures-{DEMO_VERSION}"
    if _is_complete(folder):
        return folder
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    count = len(TARGET_CLASSES) * sum(SPLITS.values())
    print(f"Drawing the demo's {count} synthetic images, once", file=sys.stderr)
    try:
        with raising_write_error(folder):
            draw_target(temporary)
            if folder.exists() and not _is_complete(folder):  # someone removed a part of it
                shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    except OSError:
        if not _is_complete(folder):  # else another process was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_complete(folder: Path) -> bool:
    return sum(1 for _ in folder.glob("*/*/*.png")) == len(TARGET_CLASSES) * sum(SPLITS.values())


def draw_target(folder: Path) -> None:
    """Draw the target task: `folder`/<split>/<class>/<number>.png, SPLITS images of each class."""
    for split_index, (split, count) in enumerate(SPLITS.items()):
        for label, name in enumerate(TARGET_CLASSES):
            class_folder = folder / split / name
            class_folder.mkdir(parents=True)
            for number in range(count):
                _draw_one(class_folder / f"{number:03d}.png", split_index, label, number)


def draw_new(folder: Path, per_class: int) -> list[Path]:
    """Draw further images of the target task, none of which is in a split, and return their paths, class by class.

    They go to `folder`/<class>/<number>.png, always the same ones; existing files stay.
    """
    paths = []
    for label, name in enumerate(TARGET_CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            path = folder / name / f"{number:03d}.png"
            if not path.is_file():
                with replacing(path) as temporary:
                    _draw_one(temporary, len(SPLITS), label, number)
            paths.append(path)
    return paths


def _draw_one(path: Path, split: int, label: int, number: int) -> None:
    # A stream for each image: one can change the number of images and the others stay as they are.
    rng = np.random.default_rng([DEMO_SEED, 0, split, label, number])
    image = paint(TARGET_SHAPES[TARGET_CLASSES[label]](rng), IMAGE_PX, rng, TARGET_MESS)
    Image.fromarray(image).save(path, format="PNG")


def draw_source(
    per_class: int, px: int, first: int = 0, seed: int = DEMO_SEED
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images of the source task, class by class in turn.

    Args:
        per_class: images of each class.
        px: side of an image.
        first: number of the first image of each class; ranges that don't overlap have no image in common.
        seed: of all of them.

    Returns:
        images (N, 3, px, px) uint8 and labels (N,) int64, indices into SOURCE_CLASSES.
    """
    shapes = list(SOURCE_SHAPES.values())
    images = np.empty((per_class * len(shapes), px, px, 3), dtype=np.uint8)
    labels = np.tile(np.arange(len(shapes), dtype=np.int64), per_class)
    for index, label in enumerate(labels):
        rng = np.random.default_rng([seed, 1, first + index // len(shapes), int(label)])
        mess = SOURCE_MESS * rng.random()  # from clean images among the messy ones a network learns outlines sooner
        images[index] = paint(shapes[label](rng), px, rng, mess)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels
