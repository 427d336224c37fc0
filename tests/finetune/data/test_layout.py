"""Pictures listed in a CSV file: read as spreadsheets write it, refused with the lines that are wrong."""

from pathlib import Path

import pytest
from PIL import Image

from finetune.data.catalog import fingerprint, locate
from finetune.data.layout import read_layout
from finetune.data.splits import Splits, find_splits
from finetune.errors import DataError
from tests.support.images import write_folder


def listed(root: Path, columns: str = "path,label,split") -> Path:
    """Write ten images of each class into one folder, and a file that says of which class and split they are."""
    file = root / "pictures.csv"
    if not file.exists():
        write_folder(root, {"photos": 10})
    rows = []
    for path in sorted((root / "photos").rglob("*.png")):
        number = int(path.stem)
        split = "test" if number < 2 else "val" if number < 4 else "train"
        values = {"path": path.relative_to(root).as_posix(), "label": path.parent.name.upper(), "split": split}
        rows.append(",".join(values[column] for column in columns.split(",")))
    file.write_text("\n".join([columns, *rows]) + "\n")
    return file


def parts(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


def test_a_file_says_class_and_split(tmp_path: Path) -> None:
    """Whatever folders the images lie in; what it does not list is left alone."""
    splits = find_splits(listed(tmp_path), 0)
    assert splits.classes == ("BLUE", "GREEN", "RED")
    assert parts(splits) == (18, 6, 6)
    assert splits.root == tmp_path
    assert splits.test[0].path == "photos/blue/000.png"
    file = tmp_path / "pictures.csv"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "000" not in line))
    assert parts(find_splits(file, 0)) == (18, 6, 3)


def test_without_splits_it_is_split_as_a_folder_of_classes(tmp_path: Path) -> None:
    """70/15/15, by the same hash: the file and the folder agree."""
    by_file = find_splits(listed(tmp_path, "path,label"), 0)
    assert parts(by_file) == (18, 6, 6)
    assert "70%" in by_file.notes[0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_spreadsheets_ways_of_writing_are_read(tmp_path: Path, delimiter: str) -> None:
    """A byte order mark, other delimiters, other names of columns, blanks, further columns."""
    file = listed(tmp_path)
    lines = [line.replace(",", f" {delimiter} ") + f"{delimiter}a note" for line in file.read_text().splitlines()[1:]]
    head = delimiter.join(["Filename", "Class", "Split", "note"])
    file.write_text("\r\n".join([head, *lines]), encoding="utf-8-sig")
    assert parts(find_splits(file, 0)) == (18, 6, 6)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_encodings_of_spreadsheets_are_read(tmp_path: Path, encoding: str, line_end: str) -> None:
    """By the byte order mark."""
    file = listed(tmp_path)
    file.write_bytes(file.read_text().replace("RED", "RÖD").replace("\n", line_end).encode(encoding))
    assert find_splits(file, 0).classes == ("BLUE", "GREEN", "RÖD")


def test_rows_without_a_split_are_left_out_and_this_is_said(tmp_path: Path) -> None:
    """So an image can be taken out of a file that says what every other one is for."""
    file = listed(tmp_path)
    file.write_text(file.read_text().replace("photos/red/009.png,RED,train", "photos/red/009.png,RED,"))
    splits = find_splits(file, 0)
    assert parts(splits) == (17, 6, 6)
    assert "1 rows of pictures.csv have no split and are left out" in splits.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("photos/red/009.png,RED,train", "photos/red/nowhere.png,RED,train"), ["line 31", "nowhere.png"]),
        (("photos/red/009.png,RED,train", "photos/red/009.png,RED,trian"), ["line 31", "'trian' is none of"]),
        (("photos/red/009.png,RED,train", "photos/red/009.png,,train"), ["line 31", "label is empty"]),
        (("photos/red/009.png,RED,train", "photos/red/008.png,BLUE,test"), ["line 31", "before, as RED, train"]),
        (("photos/red/009.png", "../red/009.png"), ["line 31", "inside of"]),
        (("photos/red/009.png", "/photos/red/009.png"), ["line 31", "inside of"]),
        (("path,label,split", "picture,kind"), ["no path and no label", "picture, kind"]),
        (("path,label,split", "path,label,label"), ["two columns label"]),
        ((",train", ",val"), ["no row whose split is train"]),
    ],
)
def test_faults_are_told_by_line(tmp_path: Path, change: tuple[str, str], words: list[str]) -> None:
    """All of them at once, the first few by name."""
    file = listed(tmp_path)
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(DataError) as caught:
        find_splits(file, 0)
    assert all(word in str(caught.value) for word in [*words, "pictures.csv"]), caught.value


def test_line_breaks_in_quoted_cells_are_part_of_the_cell(tmp_path: Path) -> None:
    """A class with a newline in its name is refused, not merged with another; other breaks of Unicode stay."""
    file = listed(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("009.png,RED,", '009.png,"R\nED",'))
    with pytest.raises(DataError, match=r"line 32: .* has control characters"):
        read_layout(file)
    file.write_text(text.replace("RED", "R\u2028ED"), encoding="utf-8")
    with pytest.raises(DataError, match="has control characters"):
        read_layout(file)
    file.write_text(text + '"photos/red/000.png,RED,train\n')
    with pytest.raises(DataError, match="can't be read as a CSV file"):
        read_layout(file)


def test_links_to_folders_above_are_not_followed(tmp_path: Path) -> None:
    """Each image counts once, in its own class; a link to images elsewhere is followed."""
    root = write_folder(tmp_path / "data", {"": 3})
    write_folder(tmp_path / "elsewhere", {"": 2})
    before, first = read_layout(root).parts, fingerprint(root)
    (root / "red" / "again").symlink_to(root / "red")
    (root / "red" / "parent").symlink_to(root)
    (root / "all").symlink_to(tmp_path)
    assert read_layout(root).parts == before
    assert fingerprint(root) == first
    (root / "red" / "more").symlink_to(tmp_path / "elsewhere" / "blue")
    assert len(read_layout(root).paths()) == 9 + 2


def test_links_between_two_folders_end(tmp_path: Path) -> None:
    """Each folder has a link to the other one: the walk ends after both."""
    root = write_folder(tmp_path, {"": 3})
    (root / "red" / "blue").symlink_to(root / "blue")
    (root / "blue" / "red").symlink_to(root / "red")
    assert len(read_layout(root).paths()) == 3 * 3


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    """Empty, not UTF-8; and a file that is no .csv is no data."""
    file = tmp_path / "pictures.csv"
    for content in (b"", b"\xff\xfe\x00p"):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"pictures\.csv"):
            read_layout(file)
    assert locate(str(file)) == file
    with pytest.raises(DataError, match=r"no folder and no \.csv"):
        locate(str(Path(__file__)))


def test_the_fingerprint_follows_labels_and_splits_and_the_pictures(tmp_path: Path) -> None:
    """But neither the order of rows nor the file's name."""
    file = listed(tmp_path)
    first, text = fingerprint(file), file.read_text()
    lines = text.splitlines()
    file.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    other = file.rename(tmp_path / "other.csv")
    assert fingerprint(other) == first
    for old, new in (("009.png,RED,", "009.png,BLUE,"), ("009.png,RED,train", "009.png,RED,val")):
        other.write_text(text.replace(old, new))
        assert fingerprint(other) != first
    other.write_text(text)
    (tmp_path / "photos" / "red" / "009.png").write_bytes(b"another")
    assert fingerprint(other) != first


@pytest.mark.parametrize("name", ["photo.bmp", "photo.tif", "photo.ppm"])
def test_the_fingerprint_follows_an_edit_in_the_middle_of_an_uncompressed_picture(tmp_path: Path, name: str) -> None:
    """One pixel, in place: the size and both ends of the file are what they were."""
    (tmp_path / "photos").mkdir()
    path, file = tmp_path / "photos" / name, tmp_path / "pictures.csv"
    Image.effect_noise((300, 200), 50).convert("RGB").save(path)
    file.write_text(f"path,label\nphotos/{name},cat\n")
    first = fingerprint(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert fingerprint(file) != first


def test_the_fingerprint_of_compressed_pictures_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Run ids contain it."""
    (tmp_path / "cat").mkdir()
    for number, start in enumerate((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        (tmp_path / "cat" / f"{number}.png").write_bytes(start + bytes(range(256)) * 200)
    assert fingerprint(tmp_path) == "45c338a85db52355"
