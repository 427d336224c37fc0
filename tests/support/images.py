"""Tiny image folders for tests."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}


def write_picture(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> None:
    """Write a noisy image of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_folder(root: Path, splits: dict[str, int], classes: dict[str, tuple[int, int, int]] = COLOURS) -> Path:
    """Write `splits[name]` images of each class below root/name (name "" for no split folder)."""
    seed = 0
    for name, count in splits.items():
        for label, colour in classes.items():
            for number in range(count):
                seed += 1
                write_picture(root / name / label / f"{number:03}.png", colour, seed)
    return root


def bomb_png() -> bytes:
    """Return a small PNG file whose header promises 60,000 x 60,000 pixels: 10 GB once decoded."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(10_000)))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
