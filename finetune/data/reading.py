"""One picture from its file: decoded, upright, RGB."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from finetune.errors import DataError


def read_picture(path: Path) -> Image.Image:
    """Return the picture as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: the file can't be read as a picture.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as a picture ({error}). Repair it or take it out") from error
