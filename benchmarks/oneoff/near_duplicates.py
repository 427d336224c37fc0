"""The threshold for near copies: how many edited copies it finds, and how many pairs it takes for copies wrongly.

    python -m benchmarks.oneoff.near_duplicates DIR

DIR holds photos that are all different, or nearly: the most alike pairs are printed, to be looked at.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from finetune.data.duplicates import LENGTH, MIN_COSINE, MIRROR, perceptual_hash
from finetune.data.folder_walk import find_images
from finetune.data.scan import inspect_file
from finetune.system.progress_bar import track

COSINES = (0.8, MIN_COSINE, 0.9)
EVERY = 8  # one in so many photos is edited
SHOWN_PAIRS = 5
ROW = "{:28}{:>16}{:>16}{:>16}"

Edit = Callable[[Image.Image], Image.Image]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Return an image after it was saved as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def crop(share: float) -> Edit:
    """Return an edit that takes away this share of width and height, half of it on each side."""
    return lambda image: ImageOps.crop(image, (round(image.width * share / 2), round(image.height * share / 2)) * 2)


def add_label(image: Image.Image) -> Image.Image:
    """Return an image with a white label in its lower right corner."""
    image = image.copy()
    right, bottom = image.size
    ImageDraw.Draw(image).rectangle((right * 0.7, bottom * 0.9, right, bottom), fill="white")
    return image


EDITS: dict[str, Edit] = {
    "JPEG quality 30": lambda image: as_jpeg(image, 30),
    "half as wide and high": lambda image: image.resize((image.width // 2, image.height // 2)),
    "a third, quality 50": lambda image: as_jpeg(image.resize((image.width // 3, image.height // 3)), 50),
    "squashed to 224 x 224": lambda image: image.resize((224, 224)),
    "a fifth brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "mirrored": ImageOps.mirror,
    "2% cropped": crop(0.02),
    "4% cropped": crop(0.04),
    "8% cropped": crop(0.08),
    "turned by 2 degrees": lambda image: image.rotate(2),
    "with a label": add_label,
    "with a frame of 3%": lambda image: ImageOps.expand(image, round(image.width * 0.03), "white"),
}


def main() -> int:
    """Print the table and the most alike pairs, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.oneoff.near_duplicates", description=__doc__)
    parser.add_argument("dir", type=Path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = list(find_images(parser.parse_args().dir))
        hashes = {
            path: inspection.perceptual_hash
            for path, inspection in zip(files, pool.map(inspect_file, files), strict=True)
        }
        paths = [path for path in files if hashes[path] is not None]
        edited = track(pool.map(_hash_edits, paths[::EVERY]), len(paths[::EVERY]), "editing")
        copies = np.array(list(edited), np.float32)  # (photos, edits, LENGTH)
    originals = np.array([hashes[path] for path in paths], np.float32)
    cosines = _cosines(copies, originals[::EVERY, None])
    print(ROW.format(f"copies found, of {len(copies)}", *(f"cosine >= {least:.2f}" for least in COSINES)))
    for number, name in enumerate(EDITS):
        print(ROW.format(name, *(f"{float((cosines[:, number] >= least).mean()):.1%}" for least in COSINES)))
    first, second = np.triu_indices(len(originals), 1)
    pairs = np.maximum(originals @ originals.T, (originals * MIRROR) @ originals.T)[first, second]
    print(ROW.format(f"of {len(pairs):,} pairs", *(f"{int((pairs >= least).sum()):,}" for least in COSINES)))
    print("the most alike:")
    for at in np.argsort(pairs)[::-1][:SHOWN_PAIRS]:
        print(f"  {pairs[at]:.3f}  {paths[first[at]]}  {paths[second[at]]}")
    return 0


def _hash_edits(path: Path) -> list[NDArray[np.float16]]:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    hashes = [perceptual_hash(as_jpeg(edit(upright), 90)) for edit in EDITS.values()]
    return [np.zeros(LENGTH, np.float16) if one is None else one for one in hashes]


def _cosines(copies: NDArray[np.float32], originals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each copy to its photo or to the mirrored one, (photos, edits)."""
    cosines: NDArray[np.float32] = np.maximum((copies * originals).sum(2), (copies * originals * MIRROR).sum(2))
    return cosines


if __name__ == "__main__":
    sys.exit(main())
