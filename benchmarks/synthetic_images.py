"""Drawn images that are as much work as photos: JPEG files with detail at every scale, of a few classes."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {"amber": (190, 150, 60), "blue": (60, 90, 180), "green": (80, 160, 80), "violet": (140, 80, 160)}
SIZE = (500, 400)  # width, height
PHOTO_SIZE = (800, 600)  # of photos from the web, iNaturalist's among them
QUALITY = 90
# Sides of the random grids that are enlarged and added up, and by how much each one varies: the finer, the less, as in
# photos (Field, J. Opt. Soc. Am. A 4, 1987: amplitude falls as 1/frequency).
GRIDS = {3: 60, 8: 35, 20: 22, 50: 14, 125: 9, 320: 6}


def draw_folder(folder: Path, counts: dict[str, int], seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Draw so many images of each split into `folder`/split/class/, the classes in turn; return the folder."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for number in range(count):
            label = list(CLASSES)[number % len(CLASSES)]
            path = folder / split / label / f"{number:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw_image(CLASSES[label], size, rng).save(path, quality=QUALITY)
    return folder


def _draw_image(colour: tuple[int, int, int], size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3)) + colour
    for side, amount in GRIDS.items():
        grid = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        enlarged = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
        pixels += (enlarged - 127.5) * (amount / 74)  # 74: standard deviation of the bytes 0 to 255
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
