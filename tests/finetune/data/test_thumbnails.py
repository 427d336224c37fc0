"""The thumbnails of a run: the right way up, whole or not at all, and harmless wherever they come from."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.data import thumbnails
from finetune.rundir import keys
from tests import ROOT
from tests.support.fabricate import CLASSES, fabricate_pictures, write_predictions


def a_run(folder: Path, paths: list[str]) -> Path:
    """Write predictions of one class for `paths` and their thumbnails; return the run directory."""
    folder.mkdir(exist_ok=True)
    write_predictions(folder, [(path, "a", "a", 0.9) for path in paths], ("a", "b"))
    thumbnails.write_thumbnails(folder, folder.parent / "data", ["a", "b"])
    return folder


def packed(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    """Return an image as a file's content."""
    content = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(content, kind)
    return content.getvalue()


def test_a_picture_is_turned_upright_and_keeps_its_proportions(tmp_path: Path) -> None:
    """A camera writes a tall image lying down and notes so in EXIF tag 274 (orientation)."""
    image = Image.new("RGB", (60, 30))
    image.paste((255, 0, 0), (0, 0, 30, 30))  # the left half, which orientation 6 turns to the top
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "photo.png", exif=exif)
    picture = thumbnails.open_thumbnail_source(tmp_path, "photo.png")
    assert picture is not None
    assert picture.shape == (60, 30, 3)
    assert picture[5, 15].tolist() == [255, 0, 0]
    assert picture[55, 15].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "path", ["missing.png", "broken.png", "../outside.png", "/etc/hostname", "a/../../outside.png"]
)
def test_what_can_not_be_shown_is_none_and_is_not_packed(tmp_path: Path, path: str) -> None:
    """Missing, broken, or outside the data folder; the other images are there all the same."""
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    for name in ("outside.png", "data/good.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert thumbnails.open_thumbnail_source(root, path) is None
    run_dir = a_run(tmp_path / "run", [path, "good.png"])
    with zipfile.ZipFile(run_dir / keys.THUMBNAILS) as archive:
        assert archive.namelist() == ["good.png.jpg"]


def test_thumbnails_are_small_and_read_back(tmp_path: Path) -> None:
    """A big photo becomes 160 pixels long, near the original in colour; equal runs write equal files."""
    (tmp_path / "data").mkdir()
    Image.new("RGB", (1600, 800), (200, 30, 30)).save(tmp_path / "data/big.png")
    run_dir = a_run(tmp_path / "run", ["big.png"])
    found = thumbnails.read_thumbnails(run_dir)
    assert list(found) == ["big.png"]
    assert found["big.png"].shape == (80, 160, 3)
    assert np.abs(found["big.png"].astype(int) - [200, 30, 30]).max() < 12
    with zipfile.ZipFile(run_dir / keys.THUMBNAILS) as archive:
        assert archive.infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
    again = a_run(tmp_path / "again", ["big.png"])
    assert (run_dir / keys.THUMBNAILS).read_bytes() == (again / keys.THUMBNAILS).read_bytes()
    assert not list(run_dir.glob("*.tmp"))


def test_pictures_with_one_stem_keep_apart(tmp_path: Path) -> None:
    """a.png and a.jpg of one folder are two images."""
    (tmp_path / "data").mkdir()
    for name, colour in (("a.png", (250, 0, 0)), ("a.jpg", (0, 0, 250)), ("a", (0, 250, 0))):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / name, "PNG")
    found = thumbnails.read_thumbnails(a_run(tmp_path / "run", ["a.png", "a.jpg", "a"]))
    assert [int(found[name][4, 4].argmax()) for name in ("a.png", "a.jpg", "a")] == [0, 2, 1]


@pytest.mark.parametrize(
    "content",
    [
        packed((161, 8)),  # larger than any thumbnail
        packed((8, 8), "PNG"),  # only what write_thumbnails writes is decoded
        packed((8, 8))[:60],
        b"",
        packed((8, 8)) + b"\0" * (64 * 2**20),  # packs to next to nothing
    ],
    ids=["large", "png", "torn", "empty", "bomb"],
)
def test_hostile_thumbnails_are_not_shown(tmp_path: Path, content: bytes) -> None:
    """One bad entry costs one image."""
    with zipfile.ZipFile(tmp_path / keys.THUMBNAILS, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bad.png.jpg", content)
        archive.writestr("good.png.jpg", packed((8, 8)))
    before = set(tmp_path.iterdir())
    assert list(thumbnails.read_thumbnails(tmp_path)) == ["good.png"]
    assert set(tmp_path.iterdir()) == before  # nothing was unpacked


@pytest.mark.parametrize("content", [None, b"", b"no zip", b"PK\x05\x06" + b"\xff" * 18])
def test_no_archive_is_no_pictures(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty or damaged: the grid looks elsewhere."""
    if content is not None:
        (tmp_path / keys.THUMBNAILS).write_bytes(content)
    assert thumbnails.read_thumbnails(tmp_path) == {}


def test_an_archive_beyond_all_measure_is_not_opened(tmp_path: Path) -> None:
    """Its table of contents alone would fill the memory."""
    (tmp_path / "data").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "data/a.png")
    file = a_run(tmp_path / "run", ["a.png"]) / keys.THUMBNAILS
    archive = file.read_bytes()
    assert list(thumbnails.read_thumbnails(file.parent)) == ["a.png"]
    with file.open("wb") as long:
        long.seek(thumbnails.MAX_ARCHIVE_BYTES)  # a hole: nothing is written
        long.write(archive)
    assert thumbnails.read_thumbnails(file.parent) == {}


def test_the_choice_needs_no_frames_and_no_torch(tmp_path: Path) -> None:
    """A run and the analysis both load it."""
    pictures = fabricate_pictures(tmp_path / "data", each=1)
    write_predictions(tmp_path, [(path, name, name, 0.9) for path, name in pictures])
    code = (
        "import sys; from pathlib import Path; from finetune.data import thumbnails;"
        f"thumbnails.write_thumbnails(Path({str(tmp_path)!r}), Path({str(tmp_path / 'data')!r}), {CLASSES!r});"
        "assert not {'torch', 'pandas', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert set(thumbnails.read_thumbnails(tmp_path)) == {path for path, _ in pictures}
