"""Pictures that are no images: refused by name, in little memory and time, in the survey and in predict alike."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from finetune.data.images.image_io import LIMIT_VARIABLE, read_image
from finetune.data.scan import inspect_file
from finetune.errors import DataError, UserError
from tests.support.images import bomb_png


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a PNG file with these chunks before its pixels."""
    header = (b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    pixels = (b"IDAT", zlib.compress(bytes((size[0] + 1) * size[1])))
    parts = [header, *chunks, pixels, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts
    )


def bmp(width: int, height: int) -> bytes:
    """Return a BMP file whose header promises so many pixels."""
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(64)


def gif(frames: int) -> bytes:
    """Return a GIF file with so many frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x21\xf9\x04\0\0\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def tiff_cycle() -> bytes:
    """Return a TIFF file whose second directory names the first as the next one."""
    made = io.BytesIO()
    Image.new("L", (8, 8)).save(made, "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))])
    content = bytearray(made.getvalue())
    first = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, first)[0]
    second = struct.unpack_from("<I", content, first + 2 + 12 * entries)[0]
    entries = struct.unpack_from("<H", content, second)[0]
    struct.pack_into("<I", content, second + 2 + 12 * entries, first)
    return bytes(content)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n%%EOF\n"
HUGE = zlib.compress(bytes(200 * 2**20))  # 200 kB that unpack to 200 MB
REFUSED = {
    "bomb.png": bomb_png(),
    "bomb.bmp": bmp(60_000, 60_000),
    "eps.jpg": EPS,
    "wmf.png": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "short.gif": b"GIF89a",
    "xpm.png": b"/* XPM */\nstatic char *x[] = {\n",
}
READ = {
    "frames.gif": gif(100_000),
    "cycle.tif": tiff_cycle(),
    "text.png": png((b"zTXt", b"Comment\0\0" + HUGE)),
    "profile.png": png((b"iCCP", b"x\0\0" + HUGE)),
}

# Reads one image in a process of its own, and prints what was said and the most memory that was taken, in MB.
LOOK = """
import resource, sys
from pathlib import Path
from finetune.data.scan import inspect_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = inspect_file(Path(sys.argv[1])).reason
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, said)
"""


@pytest.mark.parametrize("name", REFUSED)
def test_they_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """The survey and the reading say the same of them, and why; no pixel is decoded."""
    path = tmp_path / name
    path.write_bytes(REFUSED[name])
    why = inspect_file(path).reason
    assert why is not None
    with pytest.raises(DataError, match=name):
        read_image(path)


@pytest.mark.parametrize("name", READ)
def test_what_is_odd_but_small_is_read_in_no_time(tmp_path: Path, name: str) -> None:
    """100,000 frames, of which the first counts; directories in a circle; metadata that would fill the memory."""
    path = tmp_path / name
    path.write_bytes(READ[name])
    assert inspect_file(path).reason is None
    assert read_image(path).mode == "RGB"


@pytest.mark.parametrize("name", ["bomb.png", "text.png", "profile.png"])
def test_memory_has_a_bound(tmp_path: Path, name: str) -> None:
    """What would unpack to hundreds of megabytes takes less than a hundred."""
    (tmp_path / name).write_bytes({**REFUSED, **READ}[name])
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOOK, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout.split()[0]) < 100, ended.stdout


def test_the_limit_is_told_and_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with more pixels than allowed is refused with the limit and its name; a wrong limit is bad input."""
    Image.new("L", (1100, 1000)).save(tmp_path / "a.png")
    assert inspect_file(tmp_path / "a.png").reason is None
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    assert (
        inspect_file(tmp_path / "a.png").reason
        == f"it has more than 0.5 million pixels; {LIMIT_VARIABLE} sets how many may be read"
    )
    monkeypatch.setenv(LIMIT_VARIABLE, "many")
    with pytest.raises(UserError, match=f"{LIMIT_VARIABLE}: 'many'"):
        read_image(tmp_path / "a.png")


def test_no_other_program_is_started_for_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands PostScript to Ghostscript; a file of that kind is refused by its content, whatever its suffix."""
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("started a program"))
    for name in ("a.jpg", "a.png", "a.tif"):
        (tmp_path / name).write_bytes(EPS)
        assert "EPS is not read here" in str(inspect_file(tmp_path / name).reason)
