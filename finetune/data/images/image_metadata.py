"""The orientation of an image, and files without any other metadata.

Nothing in an image's metadata matters but its orientation. Pillow reads all of it, and refuses the whole image where
a part has a fault. `with_plain_metadata` returns the same pixels in a file that has the orientation alone.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

UPRIGHT = 1  # EXIF's orientation of an image that need not be turned
ORIENTATION = 0x0112
SHORT = 3  # type of a TIFF tag
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

METADATA = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})  # where Pillow finds it

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRNS_LENGTHS = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}  # colour type -> length of a sound tRNS chunk
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of the header VP8X: colour profile, EXIF, XMP
# Tags without which a TIFF's pixels can't be decoded or turned: layout, strips, tiles, palette, JPEG tables.
TIFF_PIXELS = frozenset(
    {*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339, 347, 529, 530, 532}
)
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
JPEG_APP = range(0xE0, 0xF0)
JPEG_ADOBE, JPEG_COMMENT, JPEG_SCAN, JPEG_EXIF = 0xEE, 0xFE, 0xDA, b"\xff\xe1"


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image, 1 to 8 as in EXIF; 1 where there is none that makes sense. Never raises."""
    if not METADATA & image.info.keys() and image.format != "TIFF":
        return UPRIGHT
    exif = image.info.get("exif")
    found = exif_orientation(exif) if isinstance(exif, bytes) else UPRIGHT
    if found == UPRIGHT:  # it may stand elsewhere: in XMP, or in a TIFF's own tags
        try:
            found = image.getexif().get(ORIENTATION, UPRIGHT)
        except Exception:  # Pillow raises many kinds for damaged metadata
            return UPRIGHT
    return found if isinstance(found, int) and found in TRANSPOSITIONS else UPRIGHT


def upright(image: Image.Image) -> Image.Image:
    """Return the decoded image, turned or mirrored as its orientation says."""
    image.load()  # before the orientation is read: Pillow turns TIFF files itself, and PNG may have it at the end
    return turn(image, orientation_of(image))


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image of this orientation upright."""
    transposition = TRANSPOSITIONS.get(orientation)
    return image if transposition is None else image.transpose(transposition)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in a block of EXIF, 1 where there is none; reads no other tag."""
    block = re.sub(rb"\A(Exif\0\0)+", b"", exif)
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        start = struct.unpack_from(order + "I", block, 4)[0]
        for at in range(start + 2, start + 2 + 12 * struct.unpack_from(order + "H", block, start)[0], 12):
            tag, kind, count = struct.unpack_from(order + "HHI", block, at)
            if tag == ORIENTATION and kind == SHORT and count == 1:
                return int(struct.unpack_from(order + "H", block, at + 8)[0])
    except (KeyError, struct.error):
        return UPRIGHT
    return UPRIGHT


def with_plain_metadata(content: bytes) -> bytes | None:
    """Return a JPEG, PNG, WebP or TIFF file with the same pixels and no metadata but its orientation.

    Damage among the pixels stays as it is. Returns None for other files, and where the structure can't be followed.
    """
    try:
        if content.startswith(b"\xff\xd8"):
            return _plain_jpeg(content)
        if content.startswith(PNG_SIGNATURE):
            return _plain_png(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _plain_webp(content)
        if content[:4] in (b"II*\0", b"MM\0*"):
            return _plain_tiff(content)
    except (struct.error, IndexError):
        return None
    return None


def _exif_block(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, ORIENTATION, SHORT, 1, orientation, 0, 0)


def _plain_jpeg(content: bytes) -> bytes:
    kept, orientation, at = [b"\xff\xd8"], UPRIGHT, 2
    while (at := content.find(b"\xff", at)) >= 0:
        marker = content[at + 1]
        if marker in (0, 0xFF) or marker in JPEG_STANDALONE:
            at += 1
            continue
        if marker == JPEG_SCAN:
            break
        end = at + 2 + struct.unpack_from(">H", content, at + 2)[0]
        segment = content[at:end]
        if segment.startswith(JPEG_EXIF) and segment[4:8] == b"Exif":
            orientation = exif_orientation(segment[4:]) if orientation == UPRIGHT else orientation
        if marker == JPEG_ADOBE or (marker not in JPEG_APP and marker != JPEG_COMMENT):
            kept.append(segment)
        at = max(end, at + 2)
    block = b"Exif\0\0" + _exif_block(orientation)
    kept.insert(1, JPEG_EXIF + struct.pack(">H", len(block) + 2) + block)
    return b"".join([*kept, content[at:] if at >= 0 else b""])


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the type of each chunk, its content, and the whole of it."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + length], content[at : at + 12 + length]
        at += 12 + length


def _plain_png(content: bytes) -> bytes:
    parts, orientation, transparency = [], UPRIGHT, range(0)
    for kind, inner, whole in _png_chunks(content):
        if kind == b"IHDR":
            transparency = TRNS_LENGTHS.get(inner[9], range(0))
        if kind == b"eXIf" and orientation == UPRIGHT:
            orientation = exif_orientation(inner)
        elif kind in PNG_PIXELS:
            parts.append(whole)
        elif kind == b"tRNS" and len(inner) in transparency:
            parts.append(_png_chunk(kind, inner))
    return b"".join([PNG_SIGNATURE, *parts[:1], _png_chunk(b"eXIf", _exif_block(orientation)), *parts[1:]])


def _png_chunk(kind: bytes, inner: bytes) -> bytes:
    return struct.pack(">I", len(inner)) + kind + inner + struct.pack(">I", zlib.crc32(kind + inner))


def _plain_webp(content: bytes) -> bytes:
    parts, orientation, at = [], UPRIGHT, 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        inner = content[at + 8 : at + 8 + length]
        if kind == b"EXIF":
            orientation = exif_orientation(inner)
        elif kind in WEBP_PIXELS:
            parts.append(content[at : at + 8 + length + length % 2])
        elif kind == b"VP8X":
            parts.append(content[at : at + 8] + bytes([inner[0] & ~WEBP_METADATA_FLAGS | 0x08]) + inner[1:])
        at += 8 + length + length % 2
    if any(part.startswith(b"VP8X") for part in parts):  # else there is no place for EXIF
        block = _exif_block(orientation)
        parts.append(struct.pack("<4sI", b"EXIF", len(block)) + block)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _plain_tiff(content: bytes) -> bytes:
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", content, 4)[0]
    count = struct.unpack_from(order + "H", content, start)[0]
    entries = [content[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack(order + "H", entry[:2])[0] in TIFF_PIXELS]
    padding = bytes(len(content) % 2)
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return content[:4] + struct.pack(order + "I", len(content + padding)) + content[8:] + padding + directory
