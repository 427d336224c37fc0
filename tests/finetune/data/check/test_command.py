"""The check of the data: every kind of broken image, planted leaks, classes that do not add up."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from finetune.data.__main__ import main
from finetune.data.images.image_io import read_image
from finetune.errors import DataError
from tests.support.images import bomb_png

RED = (200, 60, 50)


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Return an image with large shapes, as photos have them; another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def folder(root: Path, splits: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write scenes, all different, below root/split/class."""
    seed = 0
    for split, count in splits.items():
        for label in classes:
            for number in range(count):
                seed += 1
                path = root / split / label / f"{number:03}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                scene(seed).save(path, quality=92)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that has nothing wrong."""
    return folder(tmp_path / "photos", {"train": 12, "val": 10, "test": 10})


Said = tuple[int, dict[str, Any]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Return what checks a folder, and returns exit code and kind -> finding."""

    def run(root: Path, *more: str) -> Said:
        code = main(["check", str(root), "--json", *more])
        report = json.loads(capsys.readouterr().out)
        return code, {**{finding["kind"]: finding for finding in report["findings"]}, "report": report}

    return run


def test_a_sound_folder_has_nothing_wrong(root: Path, check: Callable[..., Said]) -> None:
    """Exit code 0, all images counted, no warning."""
    code, found = check(root)
    assert code == 0
    report = found["report"]
    assert {finding["level"] for finding in report["findings"]} == {"note"}
    assert report["classes"]["test"] == {"cat": 10, "dog": 10}
    assert (report["pictures"], report["short_side"]) == (64, [120, 120, 120])


def test_three_planted_leaks_are_found_and_the_fix_list_mends_them(
    root: Path, tmp_path: Path, check: Callable[..., Said], capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy, a small re-encoded version and a mirrored one of training images; the test image stays."""
    train, test = root / "train" / "cat", root / "test" / "cat"
    shutil.copy(train / "000.jpg", test / "same.jpg")
    Image.open(train / "001.jpg").resize((96, 72)).save(test / "small.jpg", quality=40)
    ImageOps.mirror(Image.open(train / "002.jpg")).save(root / "val" / "cat" / "mirrored.png")
    fixes = tmp_path / "fixes.csv"
    code, found = check(root, "--fix-list", str(fixes))
    assert code == 1
    assert found["copy-leak"]["pictures"] == ["test/cat/same.jpg = train/cat/000.jpg"]
    assert list(found["copy-leak"]) == ["level", "kind", "text", "mend", "pictures", "fixes"]
    assert sorted(found["lookalike-leak"]["pictures"]) == [
        "test/cat/small.jpg = train/cat/001.jpg",
        "train/cat/002.jpg = val/cat/mirrored.png",
    ]
    assert "1 in train and test, 1 in train and val" in found["lookalike-leak"]["text"]
    assert {finding["level"] for finding in (found["copy-leak"], found["lookalike-leak"])} == {"error"}
    with fixes.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["path"], row["do"]) for row in rows} == {(f"train/cat/00{n}.jpg", "remove") for n in range(3)}

    assert main(["split", str(root), "--without", str(fixes), "--out", str(root / "clean.csv")]) == 0
    assert "64 " not in capsys.readouterr().out
    code, found = check(root / "clean.csv")
    assert code == 0
    assert found["report"]["classes"]["train"] == {"cat": 9, "dog": 12}


def test_one_picture_under_two_labels_is_an_error(root: Path, check: Callable[..., Said]) -> None:
    """Exact and near; all of them are to be taken out, as which label is right can't be told."""
    shutil.copy(root / "train/cat/003.jpg", root / "train/dog/same.jpg")
    Image.open(root / "train/cat/004.jpg").save(root / "train/dog/again.jpg", quality=30)
    code, found = check(root)
    assert code == 1
    assert found["copy-labels"]["pictures"] == ["train/cat/003.jpg = train/dog/same.jpg"]
    assert [fix["path"] for fix in found["lookalike-labels"]["fixes"]] == ["train/cat/004.jpg", "train/dog/again.jpg"]


def test_copies_within_a_class_are_a_warning(root: Path, check: Callable[..., Said]) -> None:
    """They count twice, and make nothing look better than it is."""
    shutil.copy(root / "train/cat/003.jpg", root / "train/cat/same.jpg")
    code, found = check(root)
    assert (code, found["copy-within"]["level"]) == (0, "warning")
    assert [fix["path"] for fix in found["copy-within"]["fixes"]] == ["train/cat/same.jpg"]


def test_where_the_data_is_split_here_copies_are_no_leak(tmp_path: Path, check: Callable[..., Said]) -> None:
    """They stay on one side, near copies too."""
    root = folder(tmp_path / "photos", {"": 30})
    for number in range(12):
        shutil.copy(root / f"cat/{number:03}.jpg", root / f"cat/same-{number}.jpg")
        Image.open(root / f"dog/{number:03}.jpg").save(root / f"dog/near-{number}.jpg", quality=40)
    for seed in range(3):
        code, found = check(root, "--split-seed", str(seed))
        assert code == 0
        assert "leak" not in " ".join(found)
        assert (len(found["copy-within"]["pictures"]), len(found["lookalike-within"]["pictures"])) == (12, 12)


def deep(top: int) -> Image.Image:
    ramp = np.linspace(0, top, 160 * 120).reshape(120, 160).astype(np.uint16)
    return Image.fromarray(ramp)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(901).save(path, exif=exif)


def animated(path: Path) -> None:
    frames = [scene(seed).quantize(64) for seed in (902, 903)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def see_through(path: Path) -> None:
    picture = scene(904).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path)


def bomb(path: Path) -> None:
    path.write_bytes(bomb_png())


def misnamed(path: Path) -> None:
    scene(905).save(path, "PNG")


def large(path: Path) -> None:
    """Write one of more than 50 million pixels, which takes little room and time."""
    Image.new("1", (8_000, 6_400)).save(path)


KINDS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cmyk": ("x.jpg", lambda path: scene(906).convert("CMYK").save(path)),
    "deep": ("x.png", lambda path: deep(65_535).save(path)),
    "dark": ("x.png", lambda path: deep(4_095).save(path)),
    "transparent": ("x.png", see_through),
    "palette": ("x.png", lambda path: scene(907).quantize(32).save(path)),
    "animated": ("x.gif", animated),
    "turned": ("x.jpg", turned),
    "tiny": ("x.png", lambda path: scene(908, (20, 30)).save(path)),
    "strip": ("x.png", lambda path: scene(909, (2_000, 40)).save(path)),
    "blank": ("x.png", lambda path: Image.new("RGB", (90, 90), RED).save(path)),
    "enormous": ("x.png", large),
    "suffix": ("x.jpg", misnamed),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_need_care_are_named(root: Path, check: Callable[..., Said], kind: str) -> None:
    """Each kind by its name, with the picture's path; none makes the check fail, all can be read."""
    name, write = KINDS[kind]
    path = root / "train" / "cat" / name
    write(path)
    code, found = check(root)
    assert code == 0
    assert len(found[kind]["pictures"]) == 1
    assert found[kind]["pictures"][0].startswith(f"train/cat/{name}")
    assert "1 image" in found[kind]["text"]
    if kind != "enormous":
        assert read_image(path).mode == "RGB"


DAMAGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated": ("truncated", lambda path: path.write_bytes((path.parent / "000.jpg").read_bytes()[:-900])),
    "empty": ("empty", lambda path: path.write_bytes(b"")),
    "foreign": ("no image", lambda path: path.write_text("<html>404</html>")),
    "bomb": ("more than 179 million pixels", bomb),
    "real numbers": ("real numbers", lambda path: Image.fromarray(np.ones((50, 50), np.float32)).save(path, "TIFF")),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_pictures_are_named_with_the_reason(tmp_path: Path, check: Callable[..., Said], damage: str) -> None:
    """One of many is a warning, as runs leave it out; a good part of a class is an error."""
    root = folder(tmp_path / "photos", {"train": 30, "test": 5})
    reason, write = DAMAGED[damage]
    write(root / "train" / "cat" / "x.jpg")
    with pytest.raises(DataError, match="can't be read"):
        read_image(root / "train" / "cat" / "x.jpg")
    code, found = check(root)
    assert (code, found["unreadable"]["level"]) == (0, "warning")
    assert found["unreadable"]["pictures"][0].startswith("train/cat/x.jpg: ")
    assert reason in found["unreadable"]["pictures"][0]
    write(root / "test" / "cat" / "000.jpg") if damage != "truncated" else write(root / "test" / "cat" / "y.jpg")
    code, found = check(root)
    assert (code, found["unreadable"]["level"]) == (1, "error")
    assert "cat of test would lose more than 5%" in found["unreadable"]["text"] or damage == "truncated"


def test_what_16_bits_and_transparency_come_to(tmp_path: Path) -> None:
    """Greys stay greys, and what is transparent shows white, not the black that lies below it."""
    deep(65_535).save(tmp_path / "deep.png")
    greys = np.asarray(read_image(tmp_path / "deep.png"))[..., 0]
    assert (int(greys.min()), int(greys.max())) == (0, 255)
    assert 126 < greys.mean() < 129
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    clear.paste((*RED, 255), (0, 0, 5, 10))
    clear.save(tmp_path / "clear.png")
    shown = read_image(tmp_path / "clear.png")
    assert (shown.getpixel((1, 1)), shown.getpixel((9, 1))) == (RED, (255, 255, 255))


def test_what_is_no_picture_of_a_class_is_told(root: Path, check: Callable[..., Said]) -> None:
    """Hidden and other files, images outside of class folders or with a foreign suffix, dead links, empty classes."""
    (root / ".git").mkdir()
    (root / ".git" / "index").touch()
    (root / "train" / ".DS_Store").touch()
    (root / "train" / "cat" / "notes.txt").write_text("cats")
    (root / "train" / "empty").mkdir()
    scene(910).save(root / "train" / "lost.jpg")
    scene(911).save(root / "train" / "cat" / "phone.jfif", "JPEG")
    (root / "train" / "cat" / "link.jpg").symlink_to(root / "gone.jpg")
    code, found = check(root)
    assert code == 0
    assert found["hidden"]["pictures"] == [".git", "train/.DS_Store"]
    assert found["other"]["pictures"] == ["train/cat/notes.txt"]
    assert found["stray"]["pictures"] == ["train/lost.jpg"]
    assert found["dead-link"]["pictures"] == ["train/cat/link.jpg"]
    assert [fix["to"] for fix in found["unknown-suffix"]["fixes"]] == ["train/cat/phone.jpg"]
    assert "empty: no images" in json.dumps(found["report"])
    assert "empty" not in found["report"]["classes"]["train"]


def test_numbers_of_pictures_that_do_not_compare_are_told(tmp_path: Path, check: Callable[..., Said]) -> None:
    """Unequal classes, a class that is not tested, few test images, names that differ in spelling."""
    root = folder(tmp_path / "photos", {"train": 3, "test": 2}, ("cat", "dog", "Dog "))
    for number in range(40):
        scene(1000 + number).save(root / f"train/cat/more{number}.jpg")
    shutil.rmtree(root / "test" / "dog")
    code, found = check(root)
    assert code == 0
    assert "17 times" in found["imbalance"]["text"] or "times the training images" in found["imbalance"]["text"]
    assert found["absent"]["pictures"] == ["dog"]
    assert found["few"]["pictures"] == ["Dog  (2)", "cat (2)"]
    assert found["spelling"]["pictures"] == ["Dog  and dog"]


def test_what_can_not_be_split_is_an_error(root: Path, check: Callable[..., Said]) -> None:
    """Such as images to test that nothing was trained on; the rest is checked all the same."""
    folder(root, {"test": 2}, ("owl",))
    shutil.copy(root / "train/cat/005.jpg", root / "test/cat/same.jpg")
    code, found = check(root)
    assert code == 1
    assert "owl" in found["layout"]["text"]
    assert found["copy-leak"]["pictures"] == ["test/cat/same.jpg = train/cat/005.jpg"]


def test_pictures_of_one_kind_are_not_taken_for_copies(tmp_path: Path, check: Callable[..., Said]) -> None:
    """Frames of a film, say: told once, not a thousand times, and the split does not fall apart."""
    root = tmp_path / "film"
    for label, seed in (("cat", 1), ("dog", 2)):
        (root / label).mkdir(parents=True)
        for number in range(30):
            scene(seed).point(lambda value, number=number: min(255, value + number)).save(
                root / label / f"{number}.png"
            )
    code, found = check(root)
    assert code == 0
    assert "all-alike" in found
    assert found["report"]["classes"]["train"] == {"cat": 22, "dog": 22}


def test_the_report_is_for_reading(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes, what is wrong first, a few images each, and a last line that counts."""
    for number in range(8):
        shutil.copy(root / f"train/cat/00{number}.jpg", root / f"test/cat/same{number}.jpg")
    scene(99).convert("CMYK").save(root / "train/cat/[red]cmyk.jpg")
    assert main(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "cat" in out.split("class")[1]
    assert out.index("wrong:") < out.index("note:")
    assert "and 3 more" in out
    assert "[red]cmyk.jpg" in out
    assert out.strip().splitlines()[-1].startswith("1 thing would make results wrong; ")


def test_input_that_can_not_be_checked_is_refused(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such folder, a fix list that can't be written, one that is none: exit code 2 and what to do."""
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["check", str(root), "--fix-list", str(tmp_path / "no" / "fixes.csv")]) == 2
    assert "--fix-list" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["split", str(root), "--without", str(tmp_path / "other.csv")]) == 2
    assert "no columns path, do, why" in capsys.readouterr().err
    (tmp_path / "foreign.csv").write_text("path,do,to,why\ntrain/cat/none.jpg,remove,,\n")
    assert main(["split", str(root), "--without", str(tmp_path / "foreign.csv")]) == 2
    assert "train/cat/none.jpg does not lie in" in capsys.readouterr().err


def test_the_runs_that_follow_need_not_look_again(
    root: Path, check: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check has decoded is kept for them."""
    from finetune.data import scan
    from finetune.data.layout import read_layout

    _, found = check(root)
    monkeypatch.setattr(scan, "inspect_file", lambda path: pytest.fail(f"looked at {path}"))
    assert scan.load_or_scan(root, read_layout(root).paths(), found["report"]["fingerprint"]).alike == []


def test_scenes_are_alike_in_worse_quality_alone() -> None:
    """The scenes of these tests are no near copies of each other, but each is of itself in worse quality."""
    from finetune.data.duplicates import near_copies, perceptual_hash

    worse = io.BytesIO()
    scene(3).save(worse, "JPEG", quality=20)
    pictures = [*(scene(seed) for seed in range(20)), Image.open(worse)]
    assert near_copies([perceptual_hash(picture) for picture in pictures]) == [(3, 20)]
