"""Faults of files, each a function that damages the file it is given; all follow from a seed."""

import os
import random
from collections.abc import Callable
from pathlib import Path

Fault = Callable[[Path, random.Random], None]


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit anywhere in the file."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


def truncate(path: Path, rng: random.Random) -> None:
    """Cut the file short, anywhere."""
    os.truncate(path, rng.randrange(path.stat().st_size))


def zeros(path: Path, rng: random.Random) -> None:
    """Make a block of up to 512 bytes zeros, as file systems do after a power cut."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    count = len(content[start : start + 512])
    content[start : start + count] = bytes(count)
    path.write_bytes(content)


def empty(path: Path, rng: random.Random) -> None:
    """Leave nothing in the file."""
    del rng
    os.truncate(path, 0)


FAULTS: dict[str, Fault] = {"flip": flip, "truncate": truncate, "zeros": zeros, "empty": empty}
