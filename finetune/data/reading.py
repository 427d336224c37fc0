"""One picture from its file: decoded, upright, RGB."""

import struct
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from finetune.errors import DataError

# What Pillow raises for files that are damaged, foreign, or far too large.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_picture(path: Path) -> Image.Image:
    """Return the picture as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: the file can't be read as a picture.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read as a picture ({reason_of(error)}). Repair it or take it out") from error


def reason_of(error: BaseException) -> str:
    """Return why a picture can't be read, without its path, which differs from machine to machine."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow knows"
    return str(getattr(error, "strerror", None) or error)
