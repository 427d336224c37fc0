"""Reads image files: decoded, upright, RGB."""

import os
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from finetune.data.images.image_formats import FORMATS, HEIF, RAW, RAW_SUFFIXES, load_heif, reason_not_read, recognise
from finetune.data.images.image_metadata import upright, with_plain_metadata
from finetune.errors import DataError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What Pillow raises for files that are damaged, foreign, or far too large: its parsers check little themselves.
UNREADABLE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(AssertionError, BufferError, RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)

# Pillow's warnings on odd metadata name no file, and nothing of it is used.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# More than 8 bits a channel: Pillow's convert() would make everything above 255 white.
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
MAX_DEPTH = 2**16 - 1

LIMIT_VARIABLE = "FINETUNE_MOST_MEGAPIXELS"  # of one image; larger ones are refused by their header
MAX_MEGAPIXELS = 179.0  # as in Pillow

MAX_BYTES_TO_REWRITE = 2**29  # of a file with damaged metadata

BACKGROUND = (255, 255, 255)  # behind transparent parts


class UnreadableKindError(UnidentifiedImageError):
    """A file is no image of a kind that is read here; the message says what to do."""


def read_image(path: Path) -> Image.Image:
    """Return the image as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: the file can't be read as an image.
    """
    try:
        return decode(path, lambda image: to_rgb(upright(image)))
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read as an image ({reason_of(error)}). Repair it or take it out") from error


def read_small(path: Path, px: int) -> Image.Image:
    """Return the image as `read_image` does, with a longest side of at most `px`, in its own proportions.

    Raises:
        one of UNREADABLE: the file can't be read as an image.
    """

    def shrink(image: Image.Image) -> Image.Image:
        image.draft("RGB", (2 * px, 2 * px))  # lets JPEG decode small, many times faster
        return to_rgb(upright(image))

    small = decode(path, shrink)
    small.thumbnail((px, px))
    return small


def decode(path: Path, use: Callable[[Image.Image], Result]) -> Result:
    """Return `use` of an opened image; where it fails, of the same pixels without the file's metadata.

    Raises:
        one of UNREADABLE: the pixels can't be read.
        UserError: see `max_pixels`.
    """
    try:
        with open_image(path) as image:
            return use(image)
    except (Image.DecompressionBombError, UnreadableKindError):
        raise
    except UNREADABLE as error:
        plain = _without_metadata(path)
        if plain is None:
            raise
        try:
            with Image.open(BytesIO(plain), formats=FORMATS) as image:
                return use(image)
        except UNREADABLE:
            raise error from None  # of the file as it is


def _without_metadata(path: Path) -> bytes | None:
    try:
        return with_plain_metadata(path.read_bytes()) if path.stat().st_size <= MAX_BYTES_TO_REWRITE else None
    except OSError:
        return None


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int) -> Generator[Result]:
    """Yield `function` of each item, in order; threads work on up to `ahead` items in advance. Close it when done."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def open_image(path: Path) -> Image.Image:
    """Open an image and read its header, not its pixels.

    Raises:
        one of UNREADABLE: it is of no kind that is read, or has more pixels than are allowed.
        UserError: see `max_pixels`.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels() // 2  # Pillow refuses images with more than twice as many
    if path.suffix.lower() in RAW_SUFFIXES and recognise(path) == RAW:
        raise UnreadableKindError(reason_not_read(RAW))  # Pillow would open the small preview in it
    try:
        return Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        kind = recognise(path)
        if kind == HEIF and load_heif():
            return Image.open(path, formats=[HEIF])
        if kind in FORMATS:
            raise  # damaged
        raise UnreadableKindError(reason_not_read(kind)) from None


def max_pixels() -> int:
    """Return how many pixels an image may have.

    Raises:
        UserError: LIMIT_VARIABLE is not a number.
    """
    setting = os.environ.get(LIMIT_VARIABLE, "")
    try:
        megapixels = float(setting) if setting else MAX_MEGAPIXELS
    except ValueError:
        megapixels = -1.0
    if not 0 < megapixels < 1e6:
        raise UserError(f"{LIMIT_VARIABLE}: {setting!r} is no number of megapixels; give one such as 400")
    return int(megapixels * 1e6)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB.

    Of 16 bits a channel the upper 8 are used. Transparent parts become white: the colours stored for them, which
    convert() would show, mean nothing and are often black.

    Raises:
        ValueError: its values have no agreed white, being real numbers or more than 16 bits.
    """
    if image.mode in DEEP_MODES:
        return _from_deep(image).convert("RGB")
    if has_alpha(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (*BACKGROUND, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def has_alpha(image: Image.Image) -> bool:
    """Whether any part of a decoded image is transparent."""
    if not image.has_transparency_data:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return float(lowest) < 255  # type: ignore[arg-type]


def reason_of(error: BaseException) -> str:
    """Return why an image can't be read, without its path, which differs from machine to machine."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {max_pixels() / 1e6:g} million pixels; {LIMIT_VARIABLE} sets how many may be read"
    if isinstance(error, UnidentifiedImageError) and not isinstance(error, UnreadableKindError):
        return "its header is damaged"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _from_deep(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > MAX_DEPTH:
        raise ValueError("its pixels are real numbers or of 32 bits, where white is not agreed; make it 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
