"""The commands that write one file for their user, on a disk that is full: a message, the earlier file, exit code 1."""

import errno
from pathlib import Path

import pytest
from PIL import Image

from finetune.data.__main__ import main
from tests.support.failing_disk import each_write_failing


def whole(path: Path) -> bool:
    """Whether a file that a command has written is there to its end."""
    if path.suffix == ".csv":
        lines = path.read_text().splitlines()
        return len(lines) > 1 and len({line.count(",") for line in lines}) == 1
    with Image.open(path) as image:
        image.load()
    return True


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["split", "{pictures}", "--out"], "mine.csv"),
        (["check", "{pictures}", "--fix-list"], "fix.csv"),
        (["show", "{pictures}", "--pictures", "2", "--image-px", "24", "--out"], "sheet.png"),
        (["show", "{pictures}", "--pictures", "2", "--image-px", "24", "--out"], "sheet.jpg"),
    ],
    ids=["split", "check", "show-png", "show-jpg"],
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
def test_a_full_disk_keeps_the_earlier_file(
    words: list[str], name: str, code: int, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever write fails: exit code 1, one message with the file's name; then the same command writes it."""
    (pictures / "train/red/copy.png").write_bytes((pictures / "train/red/000.png").read_bytes())  # to be mended
    out = pictures / name
    out.write_text("earlier")
    arguments = [*(word.format(pictures=pictures) for word in words), str(out)]
    before = {path.name for path in pictures.iterdir()}
    for ended, told in each_write_failing(pictures, lambda: main(arguments), code):
        said = capsys.readouterr().err
        assert ended == 1, f"{told}\n{said}"
        assert said.startswith(f"WriteError: {out} can't be written ("), f"{told}\n{said}"
        assert "free" in said, said
        assert said.count("\n") == 1, said
        assert out.read_text() == "earlier", told
        assert {path.name for path in pictures.iterdir()} == before, told
    assert whole(out)
