"""Whatever the bytes, a parser succeeds or says what is wrong; `make fuzz` tries many more of them."""

import contextlib
import io
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from analysis.sources.predictions import read_predictions
from analysis.sources.run_directories import read_sweep
from finetune.config import Config, parse_config
from finetune.data import thumbnails
from finetune.data.images.image_formats import is_image
from finetune.data.images.image_io import read_image
from finetune.data.images.image_metadata import with_plain_metadata
from finetune.data.layout import read_layout
from finetune.data.scan import inspect_file
from finetune.data.thumbnails import open_thumbnail_source
from finetune.errors import DataError, UserError
from finetune.models.weights_file import read_weights
from finetune.resolve import resolve, run_id
from finetune.run.checkpoint import load_checkpoint, model_from_checkpoint
from finetune.rundir import files, keys
from finetune.sweep import sweep_file
from finetune.system import documents
from finetune.system.archive import unpack
from finetune.system.tables import read_table
from finetune.tracking.sweep_address import SWEEP_ID, parse_sweep_address
from tests.support.fabricate import fabricate_run

MANY = settings.default.max_examples  # 100, or what --hypothesis-profile says
few = settings(max_examples=40 if MANY <= 100 else MANY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIELDS = [*Config.model_fields, "nonsense", "__class__"]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
yaml_like = st.lists(
    st.sampled_from([*"[]{},:-?&*!|>'\"#%@\n \t", "<<", "&a ", "*a", "!!int ", "!!python/name:os.system ", "- ", "a: ",
                     "parameters: ", "method: grid\n", "value: ", "values: ", "lr: ", "2024-99-99", "0x", "1e999", "~",
                     "\x00", "\ufeff", "\u2028", "---\n"]) | st.text(max_size=3),
    max_size=30,
).map("".join)  # fmt: skip
csv_like = st.lists(
    st.sampled_from(["path", "label", "split", "prediction", "probability/a", ",", ";", "\t", "\n", "\r\n", '"', "'",
                     "=", "a", "train", "../", "/", "\0", "\xff", "\ufeff", "0.5", "nan"]) | st.text(max_size=2),
    max_size=40,
).map("".join)  # fmt: skip


def tried(work: Callable[[], Any], *also: type[Exception]) -> None:
    """Do it; errors that are made for being told are as good as success."""
    with contextlib.suppress(UserError, *also):
        work()


def apart(content: bytes, name: str, work: Callable[[Path], Any]) -> None:
    """Do it with a file of that content in a folder of its own, in which and beside which nothing may be added."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "inner"
        place.mkdir()
        (place / name).write_bytes(content)
        before = sorted(Path(folder).rglob("*"))
        tried(lambda: work(place / name))
        assert sorted(Path(folder).rglob("*")) == before


def mutated(good: bytes) -> st.SearchStrategy[bytes]:
    """Return the bytes with some replaced, cut out or put in."""

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = bytearray(good)
        for at, length, new in edits:
            start = at % (len(content) + 1)
            content[start : start + length] = new
        return bytes(content)

    return st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 40), st.binary(max_size=40)), max_size=6).map(
        change
    )


@few
@given(yaml_like | st.text())
def test_yaml(text: str) -> None:
    """Plain values, or a YAMLError."""
    with contextlib.suppress(yaml.YAMLError):
        documents.load_yaml(text)


@few
@given(yaml_like | plain.map(lambda value: yaml.safe_dump({"method": "grid", "parameters": value})))
def test_sweep_files(text: str) -> None:
    """A checked sweep, or a message."""
    content = text.encode("utf-8", errors="surrogatepass")
    apart(content, "s.yaml", lambda path: sweep_file.load(str(path)))


@few
@given(st.lists(st.tuples(st.sampled_from(FIELDS), yaml_like | st.text()).map("=".join) | st.text(), max_size=3))
def test_settings(settings_: list[str]) -> None:
    """`--set` values."""
    apart(
        b"method: grid\nparameters: {lr: {value: 0.1}}\n", "s.yaml", lambda path: sweep_file.load(str(path), settings_)
    )


@few
@given(st.dictionaries(st.sampled_from(FIELDS), plain | yaml_like, max_size=5))
def test_configs(values: dict[str, Any]) -> None:
    """Fields from a file or a command line: a config that has a name, or all faults at once."""
    tried(lambda: run_id(resolve(parse_config(values, "here")), "data", "weights"))


@few
@given(st.text() | st.lists(st.sampled_from(["https://", "wandb.ai", "/", "sweeps", "abcdefgh", "..", "%2e", "?", "#",
                                           "@", "runs", "[", "]", ":"])).map("".join))  # fmt: skip
def test_addresses(text: str) -> None:
    """An accepted W&B address has an id that can be a folder's name, and no part that is a path."""
    found = parse_sweep_address(text)
    if found is not None:
        assert SWEEP_ID.fullmatch(found.id)
        assert not {"/", "\\", "\0"} & set(f"{found.entity}{found.project}")
        assert "://" not in str(found)


@few
@given(csv_like, st.sampled_from(["utf-8", "latin-1", "utf-16"]))
def test_tables(text: str, encoding: str) -> None:
    """Splits as data, predictions, and tables as runs write them."""
    content = text.encode(encoding, errors="replace")
    apart(content, "splits.csv", read_layout)
    apart(content, keys.PREDICTIONS, lambda path: read_predictions(path.parent))
    apart(content, keys.PREDICTIONS, read_table)


@few
@given(st.binary() | st.lists(plain.map(repr) | st.sampled_from(['{"epoch": 1}', "{", "null", "NaN"])).map(
    lambda lines: "\n".join(lines).encode()))  # fmt: skip
def test_histories_and_json(content: bytes) -> None:
    """Rows, or torn lines; an object, or a damaged file."""
    apart(content, keys.HISTORY, lambda path: files.read_history(path.parent))
    apart(content, keys.STATE, documents.read_json)
    apart(content, keys.CONFIG, lambda path: files.read_config(path.parent))


@few
@given(
    plain,
    plain,
    st.dictionaries(st.sampled_from([*keys.SUMMARY_KEYS]), plain, max_size=4),
    st.lists(plain, max_size=3),
)
def test_run_directories(config: Any, provenance: Any, summary: dict[str, Any], rows: list[Any]) -> None:
    """A run directory of plain values of any kind beside two sound ones: a sweep that can be compared, or a message."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "s"
        for strategy in ("head", "full"):
            fabricate_run(folder, f"{strategy}-1", strategy=strategy)
        odd = fabricate_run(folder, "odd-1", strategy="head")
        content = {**files.read_config(odd), "provenance": provenance, "extra": config, "lr": config}
        (odd / keys.CONFIG).write_text(yaml.safe_dump(content), encoding="utf-8")
        told = {**(documents.read_json(odd / keys.SUMMARY) or {}), **summary}
        (odd / keys.SUMMARY).write_text(repr(told).replace("'", '"').replace("None", "null"), encoding="utf-8")
        (odd / keys.HISTORY).write_text("\n".join(map(repr, rows)), encoding="utf-8")
        tried(lambda: read_sweep(folder))


def checkpoint() -> bytes:
    """Return a small checkpoint file."""
    made = io.BytesIO()
    torch.save({"format": 1, "model": {"a": torch.zeros(2)}, "config": {"backbone": "x"}, "classes": ["a"]}, made)
    return made.getvalue()


@few
@given(mutated(checkpoint()) | st.binary())
@pytest.mark.filterwarnings("ignore")
def test_checkpoints(content: bytes) -> None:
    """A checkpoint with bytes exchanged: its content, or a message."""
    apart(content, "best.pt", lambda path: model_from_checkpoint(load_checkpoint(path)))
    apart(content, "best.pt", read_weights)


PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def archive(kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a small zip file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind) as file:
        for name in ("d/a.jpg", "d/b/c.jpg", "e.jpg"):
            file.writestr(name, bytes(500))
    return made.getvalue()


@few
@given(st.sampled_from(PACKED).flatmap(lambda kind: mutated(archive(kind))) | st.binary())
@example(archive().replace(b"PK\1\2\x14\3\x14\0", b"PK\1\2\x14\3\x40\0"))  # needs version 6.4 of the format
@pytest.mark.filterwarnings("ignore")
def test_zip_files(content: bytes) -> None:
    """A zip file with bytes exchanged is unpacked as a whole into its folder, or not at all."""
    apart(content, keys.THUMBNAILS, lambda path: thumbnails.read_thumbnails(path.parent))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "a.zip").write_bytes(content)
        tried(lambda: unpack(place / "a.zip", place / "out" / "d", "d"), zipfile.BadZipFile)
        assert {path.name for path in place.iterdir()} <= {"a.zip", "out"}
        assert {path.name for path in (place / "out").iterdir()} <= {"d"}


NOISE = Image.frombytes("RGB", (24, 16), random.Random(0).randbytes(24 * 16 * 3))
IMAGE_KINDS = ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "AVIF", "ICO", "PPM", "TGA", "JPEG2000", "MPO")
EXIF = b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 3, 0x0112, 3, 1, 6, 0) + struct.pack(
    "<HHIIHHII", 0x011A, 5, 1, 50, 0x8769, 4, 1, 60
) + struct.pack("<IIIHHHI4sI", 0, 72, 1, 1, 0x9000, 7, 4, b"0230", 0)  # fmt: skip


def picture(kind: str, exif: bytes = b"") -> bytes:
    """Return a small image with a hundred bytes of metadata where its kind has them."""
    made = io.BytesIO()
    NOISE.save(made, kind, **({"exif": exif} if exif else {}))
    return made.getvalue()


def inspect_and_read(path: Path) -> None:
    """Inspect a file and read it; the two agree on whether it is an image, and the reason has no path in it."""
    reason = inspect_file(path).reason
    try:
        assert read_image(path).mode == "RGB"
    except DataError:
        assert reason
        assert str(path) not in reason
    else:
        assert reason is None
    is_image(path)
    open_thumbnail_source(path.parent, path.name)


@few
@given(st.sampled_from(IMAGE_KINDS).flatmap(lambda kind: mutated(picture(kind))), st.sampled_from(["jpg", "tga", "x"]))
@pytest.mark.filterwarnings("ignore")
def test_pictures(content: bytes, suffix: str) -> None:
    """An image with bytes exchanged is read, or has a reason why not."""
    apart(content, f"a.{suffix}", inspect_and_read)


@few
@given(mutated(EXIF), st.sampled_from(["JPEG", "PNG", "WEBP"]))
@pytest.mark.filterwarnings("ignore")
def test_metadata(block: bytes, kind: str) -> None:
    """Whatever the EXIF block holds, the image is read, with its pixels as they were, turned or not."""
    plain, content = picture(kind), picture(kind, exif=block or b"x")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a").write_bytes(content)
        (Path(folder) / "b").write_bytes(plain)
        turned = read_image(Path(folder) / "a")
        assert inspect_file(Path(folder) / "a").reason is None
        assert sorted(turned.getdata()) == sorted(read_image(Path(folder) / "b").getdata())


PNG_CHUNKS = (b"eXIf", b"iTXt", b"zTXt", b"tEXt", b"iCCP", b"gAMA", b"cHRM", b"pHYs", b"tIME", b"sRGB", b"tRNS",
              b"sBIT", b"bKGD", b"hIST", b"sPLT", b"acTL", b"fcTL", b"caBX", b"abCD")  # fmt: skip


@few
@given(st.sampled_from(PNG_CHUNKS), st.binary(max_size=60) | mutated(b"Comment\0\0" + zlib.compress(b"a" * 99)))
@pytest.mark.filterwarnings("ignore")
def test_png_chunks(kind: bytes, inner: bytes) -> None:
    """No chunk beside the pixels costs a PNG."""
    good = picture("PNG")
    chunk = struct.pack(">I", len(inner)) + kind + inner + struct.pack(">I", zlib.crc32(kind + inner))
    for at in (33, len(good) - 12):  # after the header, before the end
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a.png").write_bytes(good[:at] + chunk + good[at:])
            assert read_image(Path(folder) / "a.png").mode == "RGB"
            assert inspect_file(Path(folder) / "a.png").reason is None


@few
@given(st.integers(0xE0, 0xEF), st.sampled_from([b"", b"Exif\0\0", b"MPF\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0",
       b"http://ns.adobe.com/xap/1.0/\0", b"JFIF\0", b"Ducky"]), st.binary(max_size=60))  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_jpeg_segments(marker: int, name: bytes, inner: bytes) -> None:
    """No segment beside the pixels costs a JPEG."""
    assume(marker != 0xEE)  # Adobe's, which says what the colours mean
    good = picture("JPEG")
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(name + inner) + 2) + name + inner
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.jpg").write_bytes(good[:2] + segment + good[2:])
        assert read_image(Path(folder) / "a.jpg").mode == "RGB"
        assert inspect_file(Path(folder) / "a.jpg").reason is None


@few
@given(st.binary() | st.sampled_from(IMAGE_KINDS).flatmap(lambda kind: mutated(picture(kind))))
def test_plain_metadata(content: bytes) -> None:
    """A file without its metadata, or None."""
    with_plain_metadata(content)
    with_plain_metadata(b"\xff\xd8" + content)
    with_plain_metadata(b"II*\0\x08\0\0\0" + content)
