"""Splits and fingerprints: stratified, repeatable, disjoint, and clear about what they used as what."""

from pathlib import Path

import pytest

from finetune.data.catalog import fingerprint, locate
from finetune.data.scan import ScanResult
from finetune.data.splits import Splits, find_splits
from finetune.errors import DataError, NotDownloadedError
from tests.support.images import COLOURS, write_folder, write_picture


def paths(splits: Splits) -> dict[str, set[str]]:
    return {name: {picture.path for picture in getattr(splits, name)} for name in ("train", "val", "test")}


def test_three_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    """train/, validation/ and test/ need no splitting."""
    splits = find_splits(write_folder(tmp_path, {"train": 5, "validation": 2, "test": 3}), 0)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (15, 6, 9)
    assert splits.val[0].path.startswith("validation/")


@pytest.mark.parametrize("other", ["val", "validation", "test"])
def test_with_one_other_folder_that_is_the_test_set(tmp_path: Path, other: str) -> None:
    """val is a stratified 20% of train, and this is said."""
    splits = find_splits(write_folder(tmp_path, {"train": 10, other: 4}), 0)
    assert {picture.path.split("/")[0] for picture in splits.test} == {other}
    assert (len(splits.train), len(splits.val), len(splits.test)) == (24, 6, 12)
    assert all(sum(picture.label == label for picture in splits.val) == 2 for label in range(3))
    assert "20%" in splits.notes[0]
    assert f"test is {other}/" in splits.notes


@pytest.mark.parametrize("layout", ["", "train"])
def test_classes_only_are_split_70_15_15(tmp_path: Path, layout: str) -> None:
    """Disjoint, complete, stratified."""
    splits = find_splits(write_folder(tmp_path, {layout: 20}), 0)
    parts = paths(splits)
    assert {name: len(part) for name, part in parts.items()} == {"train": 42, "val": 9, "test": 9}
    assert len(set.union(*parts.values())) == 60
    assert splits.classes == tuple(sorted(COLOURS))


def test_the_split_repeats_for_its_seed_and_moves_little_when_pictures_come(tmp_path: Path) -> None:
    """Another split seed gives another split; one more image moves at most one other."""
    root = write_folder(tmp_path, {"": 20})
    first = paths(find_splits(root, 0))
    assert paths(find_splits(root, 0)) == first
    assert paths(find_splits(root, 1)) != first
    write_picture(root / "red" / "new.png", COLOURS["red"], 999)
    assert len(first["test"] - paths(find_splits(root, 0))["test"]) <= 1


def test_what_is_no_picture_is_never_a_class(tmp_path: Path) -> None:
    """Hidden folders, other files and empty folders are passed over, the last with a word."""
    root = write_folder(tmp_path, {"train": 5, "test": 2})
    write_picture(root / "train" / ".ipynb_checkpoints" / "a.png", (0, 0, 0), 1)
    (root / "train" / "empty").mkdir()
    (root / "train" / "red" / "notes.txt").write_text("x")
    splits = find_splits(root, 0)
    assert splits.classes == tuple(sorted(COLOURS))
    assert any("empty: no images" in line for line in splits.notes)


def test_layouts_that_can_not_work_are_refused_with_a_reason(tmp_path: Path) -> None:
    """No classes, one class, a class with one image, a tested class that nobody learns, two val folders."""
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="found 0 classes"):
        find_splits(tmp_path / "none", 0)
    with pytest.raises(DataError, match="found 1 classes"):
        find_splits(write_folder(tmp_path / "one", {"": 5}, {"red": (1, 2, 3)}), 0)
    lone = write_folder(tmp_path / "lone", {"": 5})
    write_picture(lone / "single" / "a.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match=r"single \(1\)"):
        find_splits(lone, 0)
    unknown = write_folder(tmp_path / "unknown", {"train": 5, "test": 2})
    write_picture(unknown / "test" / "violet" / "a.png", (0, 0, 0), 1)
    with pytest.raises(DataError, match="violet"):
        find_splits(unknown, 0)
    with pytest.raises(DataError, match=r"both val/ and validation/"):
        find_splits(write_folder(tmp_path / "two", {"train": 5, "val": 1, "validation": 1}), 0)


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    """A copy has the same one; an edit, a new name or one image less gives another."""
    here, there = (write_folder(tmp_path / name, {"": 3}) for name in ("here", "there"))
    first = fingerprint(here)
    assert fingerprint(there) == first
    (there / "red" / "000.png").rename(there / "red" / "zzz.png")
    assert fingerprint(there) != first
    (here / "red" / "000.png").unlink()
    assert fingerprint(here) != first


def test_names_and_folders_that_are_not_there(tmp_path: Path) -> None:
    """Each says what to give instead."""
    with pytest.raises(DataError, match="does not exist"):
        locate(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        locate(str(tmp_path / "file"))
    with pytest.raises(NotDownloadedError, match=r"nature_12K\.zip"):
        locate("inaturalist12k")


@pytest.mark.parametrize("splits", [{"": 12}, {"train": 12, "test": 4}, {"train": 8, "val": 4, "test": 4}])
def test_folds_leave_each_picture_out_once(tmp_path: Path, splits: dict[str, int]) -> None:
    """Disjoint, complete, stratified: as test where nothing was split, else as val beside the given test set."""
    root = write_folder(tmp_path, splits)
    left_out = "val" if "test" in splits else "test"
    found = [find_splits(root, 0, 5, fold) for fold in range(5)]
    parts = [paths(one) for one in found]
    seen = [path for part in parts for path in part[left_out]]
    assert len(seen) == len(set(seen)) == 36
    for one, part in zip(found, parts, strict=True):
        assert not part["train"] & part["val"]
        assert not part["test"] & (part["train"] | part["val"])
        assert sum(map(len, part.values())) == 36 + 3 * splits.get("test", 0)
        assert min(sum(known.label == label for known in getattr(one, left_out)) for label in range(3)) >= 2
        assert 7 <= len(part[left_out]) <= 8  # 36 images in 5 parts
        assert part["val"]
    if "test" in splits:
        assert all(part["test"] == parts[0]["test"] for part in parts)
    assert "part 0 of 5" in found[0].notes[0]


def test_another_split_seed_deals_other_folds_and_small_classes_are_refused(tmp_path: Path) -> None:
    """A class needs an image for each fold."""
    root = write_folder(tmp_path, {"": 6})
    assert paths(find_splits(root, 0, 3, 0)) != paths(find_splits(root, 1, 3, 0))
    assert paths(find_splits(root, 0, 3, 0)) == paths(find_splits(root, 0, 3, 0))
    with pytest.raises(DataError, match="at least 7 images"):
        find_splits(root, 0, 7, 0)


def test_a_picture_that_can_not_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    """The others stay where they are."""
    root = write_folder(tmp_path, {"train": 10, "test": 2})
    whole = paths(find_splits(root, 0))
    without = find_splits(root, 0, scan=ScanResult({"train/red/003.png": "truncated"}))
    left = paths(without)
    assert "train/red/003.png" not in set.union(*left.values())
    assert left["train"] | {"train/red/003.png"} >= whole["train"] - left["val"]
    assert "train/red/003.png (truncated)" in " ".join(without.notes)
    with pytest.raises(DataError, match=r"red \(1\)"):
        find_splits(root, 0, scan=ScanResult({f"train/red/{number:03}.png": "truncated" for number in range(9)}))
