"""Copies of an image: found by content, and kept on one side of a split."""

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from finetune.data.duplicates import SAMPLE_BYTES, exact_duplicates
from finetune.data.splits import Splits, find_splits
from tests.support.images import write_folder


def test_copies_are_found_by_their_content(tmp_path: Path) -> None:
    """Whatever their names; large files that differ in their middle alone are none, and neither are empty ones."""
    middle = bytes(3 * SAMPLE_BYTES)
    contents = {"a": b"1", "b": b"2", "c": b"1", "d": middle, "e": middle, "f": b"", "g": b"", "h": b"1"}
    contents["i"] = middle[: 3 * SAMPLE_BYTES // 2] + b"x" + middle[3 * SAMPLE_BYTES // 2 + 1 :]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = exact_duplicates(sorted(tmp_path.iterdir()))
    assert [[path.name for path in group] for group in found] == [["a", "c", "h"], ["d", "e"]]


def sides(splits: Splits) -> dict[str, set[str]]:
    """Return the content's first image -> the splits that its copies are in."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for path, _, name in splits.rows():
        seen[Path(path).name.removeprefix("copy-")].add(name)
    return seen


@pytest.mark.parametrize("layout", ["", "train"])
@pytest.mark.parametrize("folds", [None, 4])
def test_copies_stay_on_one_side(tmp_path: Path, layout: str, folds: int | None) -> None:
    """Where they are carved out of one folder, with and without folds; without copies they are dealt as ever."""
    root = write_folder(
        tmp_path, {layout: 20, **({"test": 2} if layout else {})}, {"red": (9, 9, 9), "blue": (0, 0, 99)}
    )
    before = find_splits(root, 0, folds, 0 if folds else None)
    for number in range(0, 20, 2):
        for label in ("red", "blue"):
            folder = root / layout / label
            shutil.copy(folder / f"{number:03}.png", folder / f"copy-{label}{number:03}.png")
            (folder / f"{number:03}.png").rename(folder / f"{label}{number:03}.png")
    for seed in range(3):
        for fold in range(folds) if folds else [None]:
            found = sides(find_splits(root, seed, folds, fold))
            assert all(len(names) == 1 for name, names in found.items() if name[0] in "rb")
    assert len(before.train) > len(before.val) > 0


def test_copies_across_given_splits_and_classes_are_told(tmp_path: Path) -> None:
    """They are the user's to mend: the folder is taken as it is."""
    root = write_folder(tmp_path, {"train": 6, "val": 2, "test": 3})
    assert not [line for line in find_splits(root, 0).notes if "warning" in line]
    shutil.copy(root / "train" / "red" / "000.png", root / "test" / "red" / "leak.png")
    shutil.copy(root / "train" / "red" / "001.png", root / "test" / "blue" / "leak.png")
    how = " ".join(find_splits(root, 0).notes)
    assert "2 of the images in test are in train, too, or look the same" in how
    assert "1 group of copies or lookalikes in more than one class" in how
    assert "in val are" not in how
