"""Recognises image files by their first bytes, also the kinds that can't be read here, and loads the readers.

A suffix decides nothing but speed: a file with one of USUAL_SUFFIXES counts as an image without being opened.
"""

import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path

from PIL import Image

USUAL_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

# Formats that are read, by content. Some others that Pillow knows start programs (EPS runs Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO")

HEIF, RAW = "HEIF", "camera raw"
HEAD_BYTES = 1024  # read of a file to recognise it
# The first bytes of each kind, whether it can be read or not.
SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (kind, re.compile(pattern, re.DOTALL))
    for kind, pattern in (
        ("JPEG", rb"\xff\xd8\xff"),
        ("PNG", rb"\x89PNG\r\n"),
        ("GIF", rb"GIF8[79]a"),
        ("WEBP", rb"RIFF....WEBP"),
        ("BMP", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
        ("TIFF", rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"),
        ("JPEG2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
        ("PPM", rb"P[1-6]\s+(#[^\n]*\s+)*\d+\s"),
        ("ICO", rb"\0\0\x01\0[\x01-\x40]\0...\0"),
        ("AVIF", rb".{4}ftypavi[fs]"),
        (HEIF, rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1|heif)"),
        (RAW, rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIU\0|IIRO|IIRS|MMOR"),
        ("JPEG XL", rb"\xff\x0a|\0\0\0\x0cJXL "),
        ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.*?|<!--.*?|<!DOCTYPE\s+svg.*?)?\s*<svg[\s>]"),
        ("Photoshop", rb"8BPS"),
        ("GIMP", rb"gimp xcf"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),
        ("DICOM", rb".{128}DICM"),
        ("EPS", rb"%!PS-Adobe-.{3,6}EPSF"),
    )
)
RAW_SUFFIXES = frozenset({".dng", ".cr2", ".nef", ".arw", ".pef", ".sr2", ".rw2", ".orf", ".3fr", ".iiq", ".nrw"})
# Masters that programs keep beside the picture that was made of them, under the same name.
SIDECARS = frozenset({RAW, "Photoshop", "GIMP", "SVG", "EPS"})
HEIF_READERS = ("pi_heif", "pillow_heif")  # the first one only reads; it has no GPL part
ADVICE = {
    HEIF: "a HEIC photo: install its reader by `pip install pi-heif` or convert it to JPEG",
    "AVIF": "an AVIF image, which this build of Pillow can't read; install Pillow from PyPI, or convert it to PNG",
    "SVG": "an SVG drawing, which has no pixels; convert it to PNG",
}


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix, or by its content, read here or not; False if it can't be opened."""
    if path.suffix.lower() in USUAL_SUFFIXES:
        return True
    kind = recognise(path)
    return bool(kind) and not (kind in SIDECARS and _has_picture_beside(path))


def recognise(path: Path) -> str:
    """Return what kind of image a file is by its content, such as JPEG or HEIF, or "" for other files."""
    if path.suffix.lower() == ".tga":
        return "TGA"  # has no signature
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return ""
    kind = kind_of(head)
    return RAW if kind == "TIFF" and path.suffix.lower() in RAW_SUFFIXES else kind


def kind_of(head: bytes) -> str:
    """Return the kind of image that begins with these bytes, or ""."""
    kind = next((kind for kind, pattern in SIGNATURES if pattern.match(head)), "")
    if kind == HEIF and re.match(rb".{4}ftyp.{4}.{4}(.{4})*?avi[fs]", head[:64], re.DOTALL):
        return "AVIF"
    return kind


def reason_not_read(kind: str) -> str:
    """Return why images of a kind can't be read here, and how to mend it."""
    if kind in ADVICE:
        return ADVICE[kind]
    if kind and kind not in FORMATS:
        return f"{kind} is not read here; convert it to PNG or JPEG"
    return f"no image of a kind that is read here: {', '.join(FORMATS)}"


def heif_reader() -> str:
    """Return the name of the installed package that reads HEIC photos, or ""; it is not loaded."""
    return next((name for name in HEIF_READERS if importlib.util.find_spec(name) is not None), "")


@cache
def load_heif() -> bool:
    """Load the reader of HEIC photos where it is installed, and return whether it can be used."""
    name = heif_reader()
    if name:
        importlib.import_module(name).register_heif_opener()
    return HEIF in Image.OPEN


def _has_picture_beside(path: Path) -> bool:
    return any(
        path.with_suffix(spelling).exists() for suffix in USUAL_SUFFIXES for spelling in (suffix, suffix.upper())
    )
