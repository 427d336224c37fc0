"""Pictures that can't be decoded: named, left out, and no reason for a run to end; a look at all is kept."""

import io
from pathlib import Path

import pytest
from PIL import Image

from finetune.__main__ import main
from finetune.data import scan
from finetune.data.images.image_io import read_image
from finetune.data.scan import ScanResult, load_or_scan
from finetune.errors import DataError
from finetune.rundir import files, keys
from tests.support.images import bomb_png, write_folder


def encoded(kind: str, size: tuple[int, int] = (320, 240), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def holed(content: bytes) -> bytes:
    """Return a file with a hole in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(400) + content[middle + 400 :]


DAMAGED = {
    "empty.jpg": b"",
    "text.jpg": b"this is no image",
    "head.jpg": encoded("JPEG")[:300],
    "half.jpg": encoded("JPEG")[:-8000],
    "progressive.jpg": encoded("JPEG", progressive=True)[:-8000],
    "half.png": encoded("PNG")[:-8000],
    "hole.png": holed(encoded("PNG")),
    "half.gif": encoded("GIF")[:-8000],
    "half.webp": encoded("WEBP")[:-8000],
    "half.bmp": encoded("BMP")[:-8000],
    "half.tif": encoded("TIFF")[:-8000],
    "bomb.png": bomb_png(),
}
SOUND = {
    "photo.jpg": encoded("JPEG"),
    "progressive.jpeg": encoded("JPEG", progressive=True),
    "tiny.jpg": encoded("JPEG", (1, 1)),
    "drawing.png": encoded("PNG"),
    "hole.jpg": holed(encoded("JPEG", (800, 600))),  # Pillow decodes it, to something
}


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of sound and damaged files."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, content in {**DAMAGED, **SOUND}.items():
        (folder / name).write_bytes(content)
    return folder


def test_what_training_could_not_read_is_found_and_nothing_else(mixed: Path) -> None:
    """File by file the same as decoding it in full."""
    names = sorted(path.name for path in mixed.iterdir())
    found = load_or_scan(mixed, names, "one").unreadable
    for name in names:
        try:
            read_image(mixed / name)
        except DataError:
            assert name in found
        else:
            assert name not in found
    assert set(found) == set(DAMAGED)
    assert all(found.values())
    assert str(mixed) not in str(found)


def test_it_is_looked_for_once(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is decoded; a damaged note, and other data, are looked at anew."""
    names = sorted(path.name for path in mixed.iterdir())
    first = load_or_scan(mixed, names, "one")
    looked: list[Path] = []
    monkeypatch.setattr(scan, "inspect_file", lambda path: looked.append(path) or scan.FileInspection(None))
    assert load_or_scan(mixed, names, "one") == first
    assert not looked
    assert load_or_scan(mixed, names, "two") == ScanResult(alike=[])
    assert len(looked) == len(names)
    for note in (mixed.parent / "cache").rglob("one*.json"):
        note.write_text('{"pictures": ')
    load_or_scan(mixed, names, "one")
    assert len(looked) == 2 * len(names)


def test_a_cache_that_can_not_be_written_is_no_fault(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs time and nothing else."""
    (mixed.parent / "file").touch()
    monkeypatch.setenv("FINETUNE_CACHE", str(mixed.parent / "file" / "below"))
    assert set(load_or_scan(mixed, ["photo.jpg", "empty.jpg"], "one").unreadable) == {"empty.jpg"}


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_run_goes_on_without_them_and_names_them(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its log, in what it says of its splits, and in no split; one in each split is damaged."""
    monkeypatch.chdir(tmp_path)
    root = write_folder(tmp_path / "pictures", {"train": 6, "val": 3, "test": 3})
    damaged = ["train/red/000.png", "val/blue/001.png", "test/green/002.png"]
    for path in damaged:
        (root / path).write_bytes((root / path).read_bytes()[:-1500])
    words = [
        "--data",
        str(root),
        "--backbone",
        "squeezenet1_1",
        "--weights",
        "none",
        "--image-px",
        "32",
        "--epochs",
        "1",
    ]
    assert main([*words, "--strategy", "scratch", "--cache", cache, "--run-dir", "run"]) == 0
    run = tmp_path / "run"
    rows = (run / keys.SPLITS).read_text().splitlines()
    assert len(rows) == 1 + 36 - 3
    told = capsys.readouterr().out
    for path in damaged:
        assert path in told
        assert path not in "".join(rows)
        assert any(path in line for line in files.read_config(run)["provenance"]["splits_from"])
    assert len((run / keys.PREDICTIONS).read_text().splitlines()) == 1 + 8
