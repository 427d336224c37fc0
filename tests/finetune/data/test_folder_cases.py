"""Folders as people have them: split names, links, Unicode forms, folders that programs make."""

import os
import unicodedata
from pathlib import Path

import pytest

from finetune.data import folder_walk
from finetune.data.catalog import fingerprint
from finetune.data.check.command import check
from finetune.data.folder_walk import find_images
from finetune.data.layout import read_layout
from finetune.data.splits import find_splits
from finetune.errors import DataError
from tests.support.images import write_folder

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def written(root: Path, *names: str) -> Path:
    """Write a small file, different for each name, as each of these images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def classes_in(root: Path, *folders: str) -> Path:
    """Write two images of cat and dog into each of the folders."""
    return written(root, *(f"{folder}/{label}/{n}.jpg" for folder in folders for label in ("cat", "dog") for n in "12"))


def labels(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return part -> class -> names of images."""
    layout = read_layout(root)
    return {
        part: {label: [path.name for path in paths] for label, paths in by_class.items()}
        for part, by_class in layout.parts.items()
    }


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("train", "validate"),
        ("TRAIN", "Val", "Test"),
        ("train_set", "dev_set", "test-set"),
        ("Train Images", "Validation Images"),
        ("training", "eval"),
        ("training_data", "development", "evaluation"),
        ("train", "holdout"),
    ],
)
def test_usual_names_of_splits_are_recognised(tmp_path: Path, names: tuple[str, ...]) -> None:
    """In any case, with any separators; the log says which folder is what."""
    layout = read_layout(classes_in(tmp_path, *names))
    assert list(layout.display_names.values()) == [f"{name}/" for name in names]
    assert set(layout.parts) > {"train"}
    assert all(list(by_class) == ["cat", "dog"] for by_class in layout.parts.values())


@pytest.mark.parametrize("words", [("Train", "Valid", "Testing"), ("TRAINING", "dev", "eval")])
def test_a_csv_file_may_write_splits_in_the_same_ways(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The column split has the names that folders have."""
    classes_in(tmp_path, *"abc")
    rows = [f"{path.relative_to(tmp_path)},{path.parts[-2]},{words['abc'.index(path.parts[-3])]}"
            for path in sorted(tmp_path.rglob("*.jpg"))]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    assert {part: len(by_class) for part, by_class in read_layout(tmp_path / "list.csv").parts.items()} == {
        "train": 2, "val": 2, "test": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("site_a", "site_b"), ["site_a/, site_b/", "cat, dog"]),
        (("fold1", "fold2", "fold3"), ["fold1/, fold2/, fold3/"]),
        (("train", "test", "extra"), ["extra/", "test/, train/"]),
        (("val", "test"), ["test/, val/"]),
        (("lernen", "pruefen"), ["lernen/, pruefen/", "rename them to train/, val/ and test/"]),
        (("train", "Train", "test"), ["Train/ and train/"]),
        (("train", "test", "eval"), ["eval/ and test/"]),
    ],
)
def test_folders_that_may_be_splits_are_asked_about(tmp_path: Path, names: tuple[str, ...], asked: list[str]) -> None:
    """Siblings that hold folders of equal names, or two names of one split: what to write is said."""
    with pytest.raises(DataError) as caught:
        read_layout(classes_in(tmp_path, *names))
    assert all(word in str(caught.value) for word in [*asked, str(tmp_path)])


def test_classes_with_folders_inside_are_classes(tmp_path: Path) -> None:
    """One common name, or names of each class's own, are no splits."""
    root = written(tmp_path, "a/images/1.jpg", "b/images/2.jpg", "c/images/3.jpg")
    assert labels(root) == {"": {"a": ["1.jpg"], "b": ["2.jpg"], "c": ["3.jpg"]}}
    written(root, *(f"{label}/{label}{n}/{n}.jpg" for label in "abc" for n in "456"), "a/2020/7.jpg", "b/2020/8.jpg")
    assert len(read_layout(root).paths()) == 14


@pytest.mark.parametrize("reserved", ["train", "Training", "train_set"])
def test_a_class_may_have_the_name_of_a_split(tmp_path: Path, reserved: str) -> None:
    """Images directly in it and in its siblings; folders of images only called train and test are no classes."""
    root = written(tmp_path, *(f"{label}/{n}.jpg" for label in ("bus", "car", reserved, "test") for n in "123"))
    assert set(labels(root)[""]) == {"bus", "car", reserved, "test"}
    for label in ("bus", "car"):
        for path in (root / label).iterdir():
            path.unlink()
        (root / label).rmdir()
    with pytest.raises(DataError, match="found 0 classes"):
        find_splits(root, 0)


def test_every_real_folder_is_read_once(tmp_path: Path) -> None:
    """Whatever links lead to it, a folder counts under its own name; links to elsewhere are followed, once."""
    root = written(tmp_path / "data", "train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg")
    written(tmp_path / "other", "more/5.jpg", "more/deep/6.jpg")
    before, first = labels(root), fingerprint(root)
    links = {
        "train/cat/a_sibling": root / "train" / "dog",
        "train/cat/parent": root / "train",
        "train/cat/other_split": root / "test" / "cat",
        "train/cat/all": root,
        "train/dog/itself": root / "train" / "dog",
        "train/kitten": root / "train" / "cat",
        "above": tmp_path,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    (root / "train" / "cat" / "circle").symlink_to("circle")
    assert labels(root) == {**before, "train": {**before["train"], "kitten": []}}
    assert fingerprint(root) == first
    assert any("7 links lead to folders that are read elsewhere" in note for note in read_layout(root).notes)
    (root / "train" / "cat" / "elsewhere").symlink_to(tmp_path / "other" / "more" / "deep")
    (root / "train" / "dog" / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(root)
    assert labels(root)["train"] == {"cat": ["1.jpg", "6.jpg"], "dog": ["2.jpg", "5.jpg"], "kitten": []}
    assert fingerprint(root) != first


def test_splits_made_of_links_are_followed_and_fingerprinted(tmp_path: Path) -> None:
    """train/ and test/ hold links to folders beside them: another class of a link is other data."""
    root = written(tmp_path, *(f"pool/{name}/{name}.jpg" for name in ("c1", "d1", "c2", "d2")))
    for link, target in {"train/cat": "c1", "train/dog": "d1", "test/cat": "c2", "test/dog": "d2"}.items():
        (root / link).parent.mkdir(exist_ok=True)
        (root / link).symlink_to(root / "pool" / target)
    assert labels(root)["test"] == {"cat": ["c2.jpg"], "dog": ["d2.jpg"]}
    first = fingerprint(root)
    (root / "test" / "cat").rename(root / "test" / "swap")
    (root / "test" / "dog").rename(root / "test" / "cat")
    (root / "test" / "swap").rename(root / "test" / "dog")
    assert fingerprint(root) != first


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    """Classes in folders, and paths, labels and groups in a CSV file."""
    names = (("train", COMPOSED), ("test", DECOMPOSED), ("train", "tea"), ("test", "tea"))
    root = written(tmp_path / "folder", *(f"{split}/{name}/{n}.jpg" for n in "123" for split, name in names))
    assert labels(root)["train"].keys() == labels(root)["test"].keys() == {COMPOSED, "tea"}
    written(root, f"train/{DECOMPOSED}/4.jpg")
    assert sorted(labels(root)["train"][COMPOSED]) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    files = written(tmp_path / "file", f"{DECOMPOSED}/{DECOMPOSED}.jpg", f"{COMPOSED}.jpg", "a.jpg")
    table = files / "list.csv"
    table.write_text(f"path,label\n{COMPOSED}/{COMPOSED}.jpg,{COMPOSED}\n{DECOMPOSED}.jpg,{DECOMPOSED}\na.jpg,a\n")
    layout = read_layout(table, f"({COMPOSED})[.]jpg")
    assert {label: len(paths) for label, paths in layout.parts[""].items()} == {COMPOSED: 2, "a": 1}
    assert set(layout.groups.values()) == {COMPOSED}
    assert len(layout.groups) == 2
    table.write_text(f"path,label\n{COMPOSED}/{COMPOSED}.jpg,a\n{DECOMPOSED}/{DECOMPOSED}.jpg,a\n")
    with pytest.raises(DataError, match="was listed before"):
        read_layout(table)


@pytest.mark.parametrize(
    "name", ["@eaDir", "lost+found", "$RECYCLE.BIN", "#recycle", "__MACOSX", "System Volume Information", "@Recycle"]
)
@pytest.mark.parametrize("where", ["", "cat/", "cat/deep/"])
def test_machine_made_folders_are_passed_over_and_named(tmp_path: Path, name: str, where: str) -> None:
    """They do not become classes, and the thumbnails in them are not counted; nor are hidden folders."""
    root = written(tmp_path, *(f"{label}/{n}.jpg" for label in ("cat", "dog") for n in "123"))
    before, first = labels(root), fingerprint(root)
    written(root, f"{where}{name}/1.jpg", f"{where}{name}/x/2.jpg", f"{where}.ipynb_checkpoints/3.jpg", "Thumbs.db")
    layout = read_layout(root)
    assert labels(root) == before
    assert fingerprint(root) == first
    assert layout.notes == (f"passed over, as programs make such folders: {name} (1)",)
    assert len(list(find_images(root))) == 6


def test_a_folder_that_cannot_be_read_is_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run and in the check; never the end."""
    root = write_folder(tmp_path, {"": 4})
    written(root, "red/private/1.jpg", "violet/2.jpg")

    def scandir(folder: Path | str) -> object:
        if Path(folder).name in ("private", "violet"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real_scandir(folder)

    real_scandir = os.scandir
    monkeypatch.setattr(folder_walk.os, "scandir", scandir)
    assert any("2 folders can't be read" in note and "red/private" in note for note in find_splits(root, 0).notes)
    finding = next(finding for finding in check(str(root)).findings if finding.kind == "unreadable-folder")
    assert (finding.level, finding.images) == ("warning", ("red/private", "violet"))
