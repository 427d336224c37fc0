"""One image from its file: decoded, upright, RGB."""

import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from finetune.errors import DataError, UserError

# What Pillow raises for files that are damaged, foreign, or far too large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)

# More than 8 bits a channel: Pillow's convert() would make everything above 255 white.
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
MAX_DEPTH = 2**16 - 1

# What is read, by content. Of the others that Pillow knows some start programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO")

LIMIT_VARIABLE = "FINETUNE_MOST_MEGAPIXELS"  # of one image; what says that it has more is refused unread
MAX_MEGAPIXELS = 179.0  # as Pillow has it

BACKGROUND = (255, 255, 255)  # what shows through where an image is transparent


def read_image(path: Path) -> Image.Image:
    """Return the image as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: the file can't be read as an image.
    """
    try:
        with open_image(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read as an image ({reason_of(error)}). Repair it or take it out") from error


def open_image(path: Path) -> Image.Image:
    """Return an image of which the header has been read, not the pixels.

    Raises:
        one of UNREADABLE: it is none of FORMATS, or has more pixels than are allowed.
        UserError: the variable that says how many is no number.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels() // 2  # Pillow refuses what has more than twice as many
    return Image.open(path, formats=FORMATS)


def max_pixels() -> int:
    """Return how many pixels an image may have.

    Raises:
        UserError: the variable that says so is no number.
    """
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        most = float(given) if given else MAX_MEGAPIXELS
    except ValueError:
        most = -1.0
    if not 0 < most < 1e6:
        raise UserError(f"{LIMIT_VARIABLE}: {given!r} is no number of megapixels; give one such as 400")
    return int(most * 1e6)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB.

    Of 16 bits a channel the upper 8 are used. Where it is transparent it lies on white: the colours below transparency,
    which convert() would show, are of no meaning and often black.

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
    if isinstance(error, UnidentifiedImageError):
        return f"no image of a kind that is read here: {', '.join(FORMATS)}"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {max_pixels() / 1e6:g} million pixels; {LIMIT_VARIABLE} sets how many may be read"
    return str(getattr(error, "strerror", None) or error)


def _from_deep(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > MAX_DEPTH:
        raise ValueError("its pixels are real numbers or of 32 bits, where white is not agreed; make it 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
