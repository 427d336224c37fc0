"""Pictures that can't be decoded: found before a run starts, left out by name, and never met in mid-epoch.

Every file is decoded once, as cheaply as shows all faults; the result is kept in the user's cache, for the data as it
is, so that the next run need not look again.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from PIL import Image

from finetune.bar import bar
from finetune.data.reading import UNREADABLE, reason_of
from finetune.folders import cache_folder
from finetune.record import read_json, write_json

VERSION = 1  # to be raised when other pictures count as readable
LEAST = 200  # pictures; fewer need no bar


def unreadable(root: Path, paths: Sequence[str], fingerprint: str) -> dict[str, str]:
    """Return path -> why, for the pictures that `reading.read_picture` would refuse.

    Args:
        root: of the data, which the paths start from.
        fingerprint: of the data (see `catalog.fingerprint`).
    """
    kept = cache_folder() / "readable" / f"{fingerprint}-{VERSION}-{PIL.__version__}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = read_json(kept)
        if known is not None and known["pictures"] == len(paths):
            return {str(path): str(why) for path, why in known["unreadable"].items()}
    found = _look(root, paths)
    with contextlib.suppress(OSError):  # a cache that can't be written costs time and nothing else
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"pictures": len(paths), "unreadable": found})
    return found


def _look(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Decode them all, side by side: Pillow decodes outside of Python's lock."""
    found: dict[str, str] = {}
    show: Callable[[int, int | None], None]
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar("looking for damaged pictures", len(paths) < LEAST) as show:
        for number, (path, why) in enumerate(zip(paths, pool.map(lambda path: fault(root / path), paths), strict=True)):
            if why is not None:
                found[path] = why
            show(number + 1, len(paths))
    return found


def fault(path: Path) -> str | None:
    """Return why a picture can't be decoded, or None.

    A JPEG is brought to an eighth of its size while it is decoded: all of its bytes are read, for a third of the time.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except UNREADABLE as error:
        return reason_of(error)
    return None
