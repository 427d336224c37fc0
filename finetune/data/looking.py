"""One look at a picture file: whether it can be decoded, of what kind it is, and what tells near copies of it."""

import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from finetune.data.alike import SIDE, Trace, trace_of
from finetune.data.reading import DEEP_MODES, UNREADABLE, has_alpha, open_image, reason_of, to_rgb
from finetune.system.progress_bar import progress_bar

LEAST = 200  # pictures; fewer need no bar
LARGE = 30_000_000  # pixels; so large ones are decoded one after the other, for the memory they take
UPRIGHT = 1  # EXIF's orientation of a picture that need not be turned
ORIENTATION = 0x0112
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Look:
    """What a file is.

    Attributes:
        why: it can't be decoded, or None; then what follows is known as far as its header tells.
        kind: such as JPEG, by the content and not by the name; "" where it is no picture.
        mode: of Pillow, such as RGB, CMYK, P, I;16.
        size: (width, height) in pixels, as stored.
        turned: EXIF says that it is to be turned or mirrored for viewing.
        animated: it has several frames, of which the first is used.
        clear: parts of it are transparent.
        top: the largest value, of pictures with more than 8 bits a channel.
        trace: what tells near copies; None where it can't be decoded, or is of one colour.
    """

    why: str | None
    kind: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    animated: bool = False
    clear: bool = False
    top: int | None = None
    trace: Trace | None = None


def look_over(root: Path, paths: Sequence[str], title: str = "looking at the pictures") -> dict[str, Look]:
    """Return path -> what the file is. Several at once: Pillow decodes outside of Python's lock.

    Args:
        root: of the data, which the paths start from.
    """
    found: dict[str, Look] = {}
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar(title, len(paths) < LEAST) as show,
    ):
        warnings.simplefilter("ignore")  # of Pillow, on odd files; what matters is in the result
        for path, one in zip(paths, pool.map(lambda path: look(root / path), paths), strict=True):
            found[path] = one
            show(len(found), len(paths))
    return found


def look(path: Path) -> Look:
    """Return what a file is.

    A JPEG is brought to a fraction of its size while it is decoded: all of its bytes are read, for a third of the time.
    """
    known = Look(None)
    try:
        if not path.stat().st_size:
            return Look("the file is empty")
        with open_image(path) as image:
            known = Look(
                None,
                kind=str(image.format),
                mode=image.mode,
                size=image.size,
                turned=image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT,
                animated=plain(image.format) != "JPEG" and bool(getattr(image, "is_animated", False)),
            )
            if image.mode == "RGB":
                image.draft("L", (2 * SIDE, 2 * SIDE))
            large = image.width * image.height > LARGE
            with _one_at_a_time if large else nullcontext():
                return _decoded(image, known)
    except UNREADABLE as error:
        return Look(reason_of(error), known.kind, known.mode, known.size)


def plain(kind: str | None) -> str:
    """Return a kind of file without its variants: phones write JPEG files with further pictures behind, called MPO."""
    return "JPEG" if kind == "MPO" else str(kind)


def suffix_of(kind: str) -> str:
    """Return the suffix that files of this kind mostly have."""
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(plain(kind), f".{kind.lower()}")


def _decoded(image: Image.Image, known: Look) -> Look:
    image.load()
    deep = image.mode in DEEP_MODES
    upright = to_rgb(image) if image.mode not in ("RGB", "L") else image
    return Look(
        None,
        known.kind,
        known.mode,
        known.size,
        known.turned,
        known.animated,
        clear=has_alpha(image),
        top=int(image.getextrema()[1]) if deep else None,  # type: ignore[arg-type]
        trace=trace_of(ImageOps.exif_transpose(upright)),
    )
