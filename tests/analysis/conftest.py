"""What the tests of several rooms of the analysis share."""

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from analysis.figures import specs


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# One white pixel: a report embeds the PNG files, and opens some of them to pack them as JPEG.
WHITE_PIXEL_PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _png_chunk(b"IDAT", zlib.compress(b"\x00\xff"))
    + _png_chunk(b"IEND", b"")
)


def stop_drawing(patch: pytest.MonkeyPatch) -> None:
    """Lay out and render no figure; every saved PNG is one white pixel, every PDF is empty.

    For tests of what a report says: rendering takes most of the time of a report. Forked workers inherit it.
    """

    def save_placeholder(_: Figure, path: str | Path, **options: Any) -> None:
        Path(path).write_bytes(WHITE_PIXEL_PNG if options.get("format", "png") == "png" else b"%PDF-1.4\n")

    patch.setattr(Figure, "savefig", save_placeholder)
    patch.setattr(Figure, "draw_without_rendering", lambda _: None)


def leave_figures_blank(patch: pytest.MonkeyPatch) -> None:
    """As `stop_drawing`, and draw nothing on any axes: for tests of what happens to the files of a report."""
    stop_drawing(patch)
    patch.setattr(specs, "_on_axes", lambda *_, **__: Figure)
    patch.setattr(specs, "draw_grid", lambda *_: Figure())


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `leave_figures_blank`."""
    leave_figures_blank(monkeypatch)


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `stop_drawing`."""
    stop_drawing(monkeypatch)
