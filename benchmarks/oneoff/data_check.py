"""How long the check of a folder takes, and how much memory.

    python -m benchmarks.oneoff.data_check DIR [--pictures 10000] [--size 800x600]

DIR holds photos; random parts of them are saved as so many JPEG files of that size in a temporary folder.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from finetune.data.folder_walk import find_images
from finetune.data.images.image_io import read_image
from finetune.system.progress_bar import track

CLASSES = 10
QUALITY = 90


def main() -> int:
    """Print seconds and peak memory, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.oneoff.data_check", description=__doc__)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--size", default="800x600", help="width x height in pixels (default: %(default)s)")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    photos, count = list(find_images(args.dir)), args.pictures
    with tempfile.TemporaryDirectory() as folder:

        def write(number: int) -> int:
            path = Path(folder, f"class{number % CLASSES}", f"{number}.jpg")
            path.parent.mkdir(exist_ok=True)
            _cut_part(photos[number % len(photos)], (width, height), number).save(path, quality=QUALITY)
            return path.stat().st_size

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            total = sum(track(pool.map(write, range(count)), count, "writing images"))
        started = time.perf_counter()
        environment = {**os.environ, "FINETUNE_CACHE": folder + "/.cache"}
        subprocess.run([sys.executable, "-m", "finetune.data", "check", folder], env=environment, check=False)
        seconds = time.perf_counter() - started
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    print(f"{count:,} images of {width} x {height}, {total / 1e9:.2f} GB: {seconds:.0f} s, {megabytes:.0f} MB")
    return 0


def _cut_part(photo: Path, size: tuple[int, int], seed: int) -> Image.Image:
    """Return a random part of a photo, at least half its width and height, resized to `size`."""
    image = read_image(photo)
    numbers = np.random.default_rng(seed).random(4)
    width, height = (side * (0.5 + share / 2) for side, share in zip(image.size, numbers[:2], strict=True))
    left, top = (image.width - width) * numbers[2], (image.height - height) * numbers[3]
    return image.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))


if __name__ == "__main__":
    sys.exit(main())
