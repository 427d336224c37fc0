"""Drawn pictures that are as much work as photos: JPEG files with detail at every scale, of a few classes."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("amber", "blue", "green", "violet")
SIZE = (500, 400)  # width, height
PHOTO_SIZE = (800, 600)  # as photos from the web have it, iNaturalist's among them
QUALITY = 90
# Sides of the random grids that are enlarged and added up, coarse to fine, and by how much each one varies: about as
# much less as it is finer, as in photos (Field, J. Opt. Soc. Am. A 4, 1987: amplitude falls as 1/frequency).
GRIDS = {3: 60, 8: 35, 20: 22, 50: 14, 125: 9, 320: 6}
_COLOURS = {"amber": (190, 150, 60), "blue": (60, 90, 180), "green": (80, 160, 80), "violet": (140, 80, 160)}


def draw(folder: Path, pictures: dict[str, int], seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Draw so many pictures of a size into `folder`/split/class/, the classes in turn; return the folder."""
    random = np.random.default_rng(seed)
    for split, count in pictures.items():
        for number in range(count):
            label = CLASSES[number % len(CLASSES)]
            path = folder / split / label / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(_COLOURS[label], size, random).save(path, quality=QUALITY)
    return folder


def _picture(colour: tuple[int, int, int], size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3)) + colour
    for side, amount in GRIDS.items():
        grid = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        enlarged = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
        pixels += (enlarged - 127.5) * (amount / 74)  # 74: standard deviation of the bytes 0 to 255
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
