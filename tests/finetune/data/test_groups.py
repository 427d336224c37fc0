"""Images that belong together, as copies or as a group, stay together; each class trains first."""

import hashlib
from collections import defaultdict
from pathlib import Path

import pytest

from finetune.__main__ import main as run_command
from finetune.config import parse_config
from finetune.data.__main__ import main
from finetune.data.catalog import fingerprint
from finetune.data.check.command import check
from finetune.data.groups import find_series
from finetune.data.layout import read_layout
from finetune.data.sampling import subsample_train
from finetune.data.scan import ScanResult
from finetune.data.splits import Splits, find_splits
from finetune.errors import ConfigError, DataError
from finetune.resolve import run_id
from finetune.system.tables import read_table
from tests.support.images import write_folder

BY_PATIENT = r"([^/]+)_\d+\.png$"


def written(root: Path, names: list[str]) -> Path:
    """Write a small file, different for each name, as each of these images."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def patients(root: Path, split: str = "") -> Path:
    """Write the images of ten patients, of whom p0 to p2 have some in both classes."""
    return written(
        root,
        [
            f"{split}{label}/p{patient}_{number}.png"
            for label, some in (("cat", range(7)), ("dog", (0, 1, 2, 7, 8, 9)))
            for patient in some
            for number in range(2 + patient % 3)
        ],
    )


def sides(splits: Splits, groups: dict[str, str] | None = None) -> dict[str, set[str]]:
    """Return group -> the splits of its images."""
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for path, _, split in splits.rows():
        seen[(groups or splits.groups)[path]].add(split)
    return seen


def digest(splits: Splits) -> str:
    return hashlib.sha256(repr(splits.rows()).encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({"": 20}, ("77e2a7d2fefd", "9ca316abe6df", "1bcc91764fea")),
        ({"train": 10, "test": 4}, ("44ec0724fc97", "ef95563d651e", "b8fe692b5849")),
        ({"train": 8, "val": 4, "test": 4}, ("9d60a8e7b949", "519480bb5600", "76239dc6ef1b")),
        ({"": 3}, ("457ae1cddce1", "31fc498edc03", "d1c41919bcc4")),
    ],
)
def test_splits_of_ordinary_data_are_those_of_earlier_versions(
    tmp_path: Path, layout: dict[str, int], expected: tuple[str, str, str]
) -> None:
    """Runs of one name have one split: without folds, in a fold, and of a share."""
    root = write_folder(tmp_path, layout)
    found = find_splits(root, 0), find_splits(root, 7, 3, 1), subsample_train(find_splits(root, 1), 0.4, 1)
    assert tuple(map(digest, found)) == expected


@pytest.mark.parametrize("units", [[6], [6, 1], [5, 1, 1], [2, 2], [3, 1, 1, 1]])
@pytest.mark.parametrize("given", ["", "train/"])
def test_a_class_of_few_different_images_trains_first(tmp_path: Path, units: list[int], given: str) -> None:
    """Near copies go to one split; whatever the seed, train comes first, then test; what lacks some is named."""
    groups = [[f"{given}cat/{unit}-{copy}.png" for copy in range(size)] for unit, size in enumerate(units)]
    names = [f"{given}dog/{number}.png" for number in range(9)]
    names += ["test/dog/a.png", "test/cat/a.png"] if given else []
    root = written(tmp_path, [*names, *(name for group in groups for name in group)])
    for seed in range(5):
        splits = find_splits(root, seed, scan=ScanResult(alike=groups))
        counts = {name: sum(s.label == 0 for s in getattr(splits, name)) for name in ("train", "val", "test")}
        assert counts["train"] > 0
        assert (counts["test"] > 0) == (bool(given) or len(units) > 1)
        assert (counts["val"] > 0) == (len(units) > (1 if given else 2))
        assert all(
            any(f"{name} has no image of cat" in note for note in splits.notes) for name in counts if not counts[name]
        )
        assert all(len(names) == 1 for names in sides(splits, {p: p.split("-")[0] for p, *_ in splits.rows()}).values())


def test_a_fold_without_training_images_of_a_class_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Six near copies can be tested or trained on, not both."""
    alike = [[f"cat/{number}.png" for number in range(6)]]
    root = written(tmp_path, [*alike[0], *(f"dog/{number}.png" for number in range(9))])
    faults = []
    for fold in range(3):
        try:
            find_splits(root, 0, 3, fold, ScanResult(alike=alike))
        except DataError as error:
            faults.append(str(error))
    assert len(faults) == 1
    assert "no training image of cat" in faults[0]


def test_the_check_counts_a_class_that_cannot_be_tested_as_wrong(tmp_path: Path) -> None:
    """Its images are exact copies; given splits remain a warning."""
    root = write_folder(tmp_path, {"": 4}, {"red": (9, 9, 9), "blue": (0, 0, 99)})
    for number in range(1, 4):
        (root / "red" / f"{number:03}.png").write_bytes((root / "red" / "000.png").read_bytes())
    absent = [finding for finding in check(str(root)).findings if finding.kind == "absent"]
    assert [(finding.level, finding.images) for finding in absent] == [("error", ("red",))] * 2


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_group_is_on_one_side_whatever_its_classes(tmp_path: Path, split: str) -> None:
    """Without and with folds, and in a share of train; each class trains, and each fold tests its part once."""
    root = patients(tmp_path, split)
    layout = read_layout(root, BY_PATIENT)
    for seed in range(5):
        folds = [find_splits(layout, seed, 3, fold) for fold in range(3)]
        for splits in (find_splits(layout, seed), *folds):
            assert all(len(names) == 1 for names in sides(splits).values())
            assert {sample.label for sample in splits.train} == {0, 1}
        assert len({s.path for fold in folds for s in fold.test}) == sum(len(fold.test) for fold in folds) == 38
        before: set[str] = set()
        for share in (0.2, 0.5, 0.8, 1):
            train = {sample.path for sample in subsample_train(folds[0], share, seed).train}
            kept = {layout.groups[path] for path in train}
            assert train == {sample.path for sample in folds[0].train if layout.groups[sample.path] in kept}
            assert before <= train
            before = train
    assert any("38 images are in 10 groups" in note for note in splits.notes)


def test_groups_take_copies_of_their_images_with_them(tmp_path: Path) -> None:
    """Patients that share a near copy are one group."""
    root = patients(tmp_path)
    scan = ScanResult(alike=[["cat/p3_0.png", "dog/p7_0.png"], ["dog/p7_1.png", "dog/p8_0.png"]])
    for seed in range(6):
        found = sides(find_splits(read_layout(root, BY_PATIENT), seed, scan=scan))
        assert found["p3"] == found["p7"] == found["p8"]
        assert len(found["p3"]) == 1


def test_a_column_of_a_csv_file_gives_groups(tmp_path: Path) -> None:
    """As a pattern does; the fingerprint has it."""
    root = patients(tmp_path)
    layout = read_layout(root, BY_PATIENT)
    rows = [f"{path},{path[:3]},{layout.groups[path]}" for path in layout.paths()]
    file = root / "images.csv"
    file.write_text("\n".join(["path,label", *(row.rpartition(",")[0] for row in rows)]))
    plain = fingerprint(file)
    file.write_text("\n".join(["path,label,Group", *rows]))
    assert fingerprint(file) != plain
    assert find_splits(file, 3).rows() == find_splits(layout, 3).rows()
    with pytest.raises(DataError, match="leave one of them out"):
        read_layout(file, BY_PATIENT)
    file.write_text("\n".join(["path,label,group", *(row.replace("cat,p0", "cat,") for row in rows)]))
    assert any("the other 2, such as cat/p0_0.png, are in none" in note for note in find_splits(file, 0).notes)


def test_the_split_command_takes_a_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it writes has a column group, and is data with the same splits."""
    root = write_folder(tmp_path, {"": 8}, {"red": (9, 9, 9), "blue": (0, 0, 99)})
    assert main(["split", str(root), "--group-by", r"/00(\d)"]) == 0
    written_rows = read_table(root / "splits.csv")
    assert all(row["group"] == row["path"][-5] for row in written_rows)
    assert "groups" in capsys.readouterr().out
    again = find_splits(root / "splits.csv", 0)
    assert again.rows() == [(row["path"], row["label"], row["split"]) for row in written_rows]
    assert len(again.groups) == 16


@pytest.mark.parametrize(("pattern", "fault"), [("(", "no regular expression"), ("zebra", "found in none")])
def test_a_pattern_that_finds_no_groups_is_refused(tmp_path: Path, pattern: str, fault: str) -> None:
    """By the layout; one that is no pattern by the config, too."""
    with pytest.raises(DataError, match=fault):
        read_layout(patients(tmp_path), pattern)
    if pattern == "(":
        with pytest.raises(ConfigError, match=fault):
            parse_config({"group_by": pattern}, "a test")
        assert run_command(["--group-by", pattern]) == 2


def test_groups_identify_a_run_that_has_them_alone() -> None:
    """The name of a run without is that of earlier versions."""
    without, by_patient = (parse_config(fields, "a test") for fields in ({}, {"group_by": BY_PATIENT}))
    assert run_id(without, "data", "weights") == "partial-1f6fc91e"
    assert run_id(by_patient, "data", "weights") != run_id(without, "data", "weights")


def test_the_check_lists_groups_on_both_sides_of_given_splits(tmp_path: Path) -> None:
    """That is wrong; without groups, names that look like series are noted."""
    root = write_folder(tmp_path, {"train": 4, "test": 2}, {"red": (9, 9, 9), "blue": (0, 0, 99)})
    for path in sorted(root.rglob("*.png")):
        path.rename(path.with_name(f"{path.parts[-3][:2]}{int(path.stem) % 2}{path.parts[-2]}_{path.name}"))
    report = check(str(root), group_by=r"(\d)(?:red|blue)_")
    leak = next(finding for finding in report.findings if finding.kind == "group-leak")
    assert leak.level == "error"
    assert all("test" in line for line in leak.images)
    assert not [finding for finding in report.findings if finding.kind == "series"]
    series = next(finding for finding in check(str(root)).findings if finding.kind == "series")
    assert series.level == "note"
    assert "group_by=" in series.advice


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([f"cat/patient{p:02}_{n:02}.jpg" for p in range(6) for n in range(3)], True),
        ([f"cat/plant {p} ({n}).jpg" for p in range(6) for n in range(3)], True),
        ([f"cat/film{p}-frame{n:04}.png" for p in range(6) for n in range(3)], True),
        ([f"train/cat/patient{p}/{n}.jpg" for p in range(6) for n in range(3)], True),
        ([f"cat/anna{p}/{n}.jpg" for p in range(6) for n in range(3)], True),
        ([f"cat/IMG_{n:04}.jpg" for n in range(18)], False),
        ([f"train/cat/{n:04}.jpg" for n in range(18)], False),
        ([f"n{c}/n{c}_{n}.JPEG" for c in range(2) for n in range(18)], False),
        ([f"cat/{n * 7919}_{n}.jpg" for n in range(18)], False),
    ],
)
def test_names_of_series_are_recognised(names: list[str], found: bool) -> None:
    """Numbers after the name of a patient, plant or film, or folders in a class; not numbers of a camera or class."""
    series = list(find_series(names, 2))
    assert bool(series) == found
    assert not found or len(series[0][1]) == 6
