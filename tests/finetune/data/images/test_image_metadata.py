"""Of an image's metadata only the orientation is read; nothing else in it costs an image or a command."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.data.images.image_io import read_image
from finetune.data.images.image_metadata import exif_orientation, with_plain_metadata
from finetune.data.scan import inspect_file
from finetune.data.thumbnails import open_thumbnail_source
from finetune.inference.prediction_page import thumbnail_of
from tests.finetune.data.images.test_hostile_images import png

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = (24, 16)
X_RESOLUTION, ASCII, SHORT, RATIONAL = 0x011A, 2, 3, 5
ROTATED = {6: (16, 24), 3: SIZE}


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def exif(*entries: bytes, count: int | None = None) -> bytes:
    """Return a block of EXIF with these entries; `count` is the number that it claims."""
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, count or len(entries)) + b"".join(entries) + bytes(4)


def turned(orientation: int) -> bytes:
    return entry(0x0112, SHORT, 1, struct.pack("<H", orientation))


ODD = {
    "text for a number": exif(turned(6), entry(X_RESOLUTION, ASCII, 3, b"72\0"), entry(0x011B, ASCII, 3, b"72\0")),
    "zero denominator": exif(turned(6), entry(X_RESOLUTION, RATIONAL, 1, struct.pack("<I", 4))),
    "offset beyond the end": exif(turned(6), entry(X_RESOLUTION, RATIONAL, 1, b"\xff\xff\xff\x7f")),
    "unknown type": exif(turned(6), entry(X_RESOLUTION, 99, 7, b"\1\2\3\4")),
    "huge count": exif(turned(6), entry(X_RESOLUTION, RATIONAL, 2**31, b"\4\0\0\0")),
    "more entries than there are": exif(turned(6), count=500),
    "directory in a circle": exif(turned(6), entry(0x8769, 4, 1, struct.pack("<I", 8))),
    "exif directory of text": exif(turned(6), entry(0x8769, ASCII, 4, b"abc\0")),
    "an odd tag first": exif(entry(0x0100, 12, 9, b"\xff\xff\0\0"), turned(6)),
}
UNTURNED = {
    "no directory": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "empty": b"Exif\0\0",
    "no byte order": b"Exif\0\0??*\0\x08\0\0\0",
    "orientation 9": exif(turned(9)),
    "orientation of text": exif(entry(0x0112, ASCII, 4, b"abc\0")),
}


def encoded(kind: str, block: bytes = b"", **options: object) -> bytes:
    made = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8))
    image.save(made, kind, **({"exif": block} if block else {}), **options)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", [*ODD, *UNTURNED])
def test_of_exif_only_the_orientation_is_read(tmp_path: Path, kind: str, case: str) -> None:
    """Whatever else it holds, the image is used: in the scan, by runs and predict, in thumbnails, on the page."""
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(kind, {**ODD, **UNTURNED}[case]))
    expected = ROTATED[6] if case in ODD else SIZE
    inspection = inspect_file(path)
    assert inspection.reason is None
    assert inspection.turned == (case in ODD)
    assert read_image(path).size == expected
    small = open_thumbnail_source(tmp_path, "a.jpg")
    assert small is not None
    assert small.shape[1::-1] == expected
    assert thumbnail_of(path) is not None


@pytest.mark.parametrize("orientation", range(10))
def test_orientations_are_those_of_exif(orientation: int) -> None:
    """Its eight values, in either byte order, and whatever the length of the prefix."""
    little = exif(turned(orientation))
    big = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, SHORT, 1, orientation, 0, 0)
    assert exif_orientation(little) == exif_orientation(little[6:]) == exif_orientation(big) == orientation


def chunk_cases() -> dict[str, bytes]:
    """Return PNG files with a damaged chunk beside sound pixels."""
    return {
        "damaged text": png((b"zTXt", b"Comment\0\0no zlib")),
        "unknown compression of text": png((b"zTXt", b"Comment\0\7abc")),
        "international text without separators": png((b"iTXt", b"Comment")),
        "damaged profile": png((b"iCCP", b"icc\0\0no zlib")),
        "short gamma": png((b"gAMA", b"\1")),
        "short resolution": png((b"pHYs", b"\1\2")),
        "short chromaticity": png((b"cHRM", b"\1\2")),
        "transparency of the wrong length": png((b"tRNS", b"\1")),
        "animation without frames": png((b"acTL", b"\0\0\0\0\0\0\0\0")),
        "short frame control": png((b"fcTL", b"\0")),
        "unknown chunk": png((b"abCD", bytes(300))),
        "wrong checksum of text": png((b"tEXt", b"Comment\0abc")).replace(b"Comment\0abc", b"Comment\0abd"),
    }


@pytest.mark.parametrize("case", chunk_cases())
def test_no_chunk_beside_the_pixels_costs_a_png(tmp_path: Path, case: str) -> None:
    """As in browsers."""
    (tmp_path / "a.png").write_bytes(chunk_cases()[case])
    assert inspect_file(tmp_path / "a.png").reason is None
    assert read_image(tmp_path / "a.png").size == (8, 8)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("kind", [ASCII, 12, 99])
def test_no_tag_beside_the_pixels_costs_a_tiff(tmp_path: Path, compression: str | None, kind: int) -> None:
    """A resolution that is no number; the orientation still counts."""
    content = bytearray(encoded("TIFF", compression=compression, dpi=(72, 72), tiffinfo={0x0112: 6}))
    start = struct.unpack_from("<I", content, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        if struct.unpack_from("<H", content, at)[0] in (X_RESOLUTION, 0x011B):
            struct.pack_into("<HI", content, at + 2, kind, 3)
    (tmp_path / "a.tif").write_bytes(content)
    assert inspect_file(tmp_path / "a.tif").turned
    assert read_image(tmp_path / "a.tif").size == ROTATED[6]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_without_metadata_the_pixels_are_the_same(tmp_path: Path, kind: str) -> None:
    """And the orientation stays."""
    content = encoded(kind, exif(turned(6)) if kind != "TIFF" else b"")
    (tmp_path / "a").write_bytes(content)
    plain = with_plain_metadata(content)
    assert plain is not None
    (tmp_path / "b").write_bytes(plain)
    assert np.array_equal(read_image(tmp_path / "a"), read_image(tmp_path / "b"))


def test_damaged_pixels_stay_damaged(tmp_path: Path) -> None:
    """Without its metadata, too, a file that is cut off among its pixels is refused, for the reason of the file."""
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif(turned(6)), quality=95)[:-300])
    assert "truncated" in str(inspect_file(tmp_path / "a.jpg").reason)
