"""What counts as a near copy: how many edited copies are found, and how many pairs are taken for copies wrongly.

    python -m benchmarks.near_duplicates DIR

DIR holds photos that are all different, or nearly: the pairs of most alike ones are named, to be looked at.
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
from finetune.data.layout import find_pictures
from finetune.data.scan import inspect_file
from finetune.system.progress_bar import progress_bar

COSINES = (0.8, MIN_COSINE, 0.9)
EVERY = 8  # of the photos one in so many is edited
NAMED = 5  # pairs

Edit = Callable[[Image.Image], Image.Image]


def saved(image: Image.Image, quality: int) -> Image.Image:
    """Return a picture as it comes out of a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(share: float) -> Edit:
    """Return what takes away this share of width and height, half of it on each side."""
    return lambda image: ImageOps.crop(image, (round(image.width * share / 2), round(image.height * share / 2)) * 2)


def marked(image: Image.Image) -> Image.Image:
    """Return a picture with a white label in its lower right corner."""
    image = image.copy()
    right, bottom = image.size
    ImageDraw.Draw(image).rectangle((right * 0.7, bottom * 0.9, right, bottom), fill="white")
    return image


EDITS: dict[str, Edit] = {
    "JPEG quality 30": lambda image: saved(image, 30),
    "half as wide and high": lambda image: image.resize((image.width // 2, image.height // 2)),
    "a third, quality 50": lambda image: saved(image.resize((image.width // 3, image.height // 3)), 50),
    "squashed to 224 x 224": lambda image: image.resize((224, 224)),
    "a fifth brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "mirrored": ImageOps.mirror,
    "2% cropped": cropped(0.02),
    "4% cropped": cropped(0.04),
    "8% cropped": cropped(0.08),
    "turned by 2 degrees": lambda image: image.rotate(2),
    "with a label": marked,
    "with a frame of 3%": lambda image: ImageOps.expand(image, round(image.width * 0.03), "white"),
}


def main() -> int:
    """Print the table and the most alike pairs, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.near_duplicates", description=__doc__)
    parser.add_argument("dir", type=Path)
    paths = list(find_pictures(parser.parse_args().dir))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {
            path: one.trace
            for path, one in zip(paths, pool.map(inspect_file, paths), strict=True)
            if one.trace is not None
        }
        paths = list(found)
        traces = np.array(list(found.values()), np.float32)
        some = range(0, len(paths), EVERY)
        with progress_bar("editing") as show:
            edited = []
            for number, one in enumerate(pool.map(_edited, (paths[index] for index in some))):
                edited.append(one)
                show(number + 1, len(some))
    copies = np.array(edited, np.float32)  # (photos, edits, LENGTH)
    cosines = _cosines(copies, traces[::EVERY, None])
    print(f"{'copies found, of ' + str(len(some)):28}" + "".join(f"  cosine >= {least:.2f}" for least in COSINES))
    for number, name in enumerate(EDITS):
        print(f"{name:28}" + "".join(f"{float((cosines[:, number] >= least).mean()):16.1%}" for least in COSINES))
    first, second = np.triu_indices(len(traces), 1)
    pairs = np.maximum(traces @ traces.T, (traces * MIRROR) @ traces.T)[first, second]
    print(f"{f'of {len(pairs):,} pairs':28}" + "".join(f"{int((pairs >= least).sum()):16,}" for least in COSINES))
    print("the most alike:")
    for at in np.argsort(pairs)[::-1][:NAMED]:
        print(f"  {pairs[at]:.3f}  {paths[first[at]]}  {paths[second[at]]}")
    return 0


def _cosines(copies: NDArray[np.float32], traces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine of each copy to its photo or to the mirrored one, (photos, edits)."""
    cosines: NDArray[np.float32] = np.maximum((copies * traces).sum(2), (copies * traces * MIRROR).sum(2))
    return cosines


def _edited(path: Path) -> list[NDArray[np.float16]]:
    with Image.open(path) as image:
        whole = ImageOps.exif_transpose(image).convert("RGB")
    traces = [perceptual_hash(saved(edit(whole), 90)) for edit in EDITS.values()]
    return [np.zeros(LENGTH, np.float16) if trace is None else trace for trace in traces]


if __name__ == "__main__":
    sys.exit(main())
