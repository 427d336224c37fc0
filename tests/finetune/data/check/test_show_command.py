"""`python -m finetune.data show`: the contact sheet of what training sees."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.config import parse_config
from finetune.data.__main__ import main
from finetune.data.augmentation import train_transform
from finetune.data.check.show_command import (
    GAP_PX,
    GROUP_GAP_PX,
    LABEL_PX,
    TEXT_PX,
    TILE_PX,
    VIEWS,
    by_split,
    choose,
    evaluated,
    sheet,
    views,
)
from finetune.data.dataset import ImageDataset
from finetune.data.splits import find_splits
from finetune.pretrained import preprocessing_of

STEP = TILE_PX + GAP_PX


def width(*groups: int) -> int:
    return LABEL_PX + sum(columns * STEP + GROUP_GAP_PX for columns in groups)


def test_a_row_a_picture_and_columns_for_each_level(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluation, three levels, and the extras that are asked for."""
    out = tmp_path / "sheet.png"
    asked = ["--erasing", "1", "--mixup", "1", "--cutmix", "1", "--pictures", "4", "--image-px", "32"]
    assert main(["show", str(pictures), *asked, "--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.size == (width(1, *[VIEWS] * 6), 2 * TEXT_PX + 4 * STEP + GAP_PX)
        tile = np.asarray(image.convert("RGB"))[2 * TEXT_PX : 2 * TEXT_PX + TILE_PX, LABEL_PX : LABEL_PX + TILE_PX]
    assert tile[..., 2].mean() > tile[..., 0].mean() + 50  # the first row is blue
    said = capsys.readouterr().out
    assert said == f"{out}: 4 training images, evaluation, light, standard, strong, erasing 1, mixup 1, cutmix 1\n"


def test_one_level_alone_is_what_a_run_of_these_settings_sees(pictures: Path) -> None:
    """The very views of its first epochs; mixed images have something of their neighbour."""
    splits = find_splits(pictures, 0)
    chosen = choose(splits, 3)
    assert [splits.classes[picture.label] for picture in chosen] == ["blue", "green", "red"]
    settings = {"data": str(pictures), "augment": "strong", "erasing": 0.5, "image_px": 32, "seed": 3}
    config = parse_config(settings, "a test")
    _, group = views(config, splits, chosen, only=True)
    assert group.title == "strong + erasing 0.5"
    preprocessing = preprocessing_of(config.backbone, config.weights, 32)
    dataset = ImageDataset(splits.root, chosen, preprocessing, train_transform(preprocessing, "strong", 0.5))
    for epoch, column in enumerate(group.columns):
        for row, view in enumerate(column):
            assert torch.equal(view, dataset[f"seed 3 epoch {epoch}", row, None][0])
    _, mixed = views(config.model_copy(update={"mixup": 1.0}), splits, chosen, only=True)
    assert mixed.title == "strong + erasing 0.5 + mixup 1"
    assert any((one != other).any() for one, other in zip(group.columns, mixed.columns, strict=True))


def test_each_split_is_shown_by_class(pictures: Path) -> None:
    """The first images of every class as evaluation sees them; a class that has fewer leaves white squares."""
    (pictures / "test" / "red" / "001.png").unlink()
    for number in (2, 3):
        (pictures / "test" / "red" / f"00{number}.png").unlink()
    splits = find_splits(pictures, 0)
    preprocessing = preprocessing_of("resnet18", "none", 32)
    groups = by_split(splits, preprocessing, each=2)
    assert [group.title for group in groups] == [
        f"train: {len(splits.train)}", f"val: {len(splits.val)}", f"test: {len(splits.test)}",
    ]  # fmt: skip
    for group, part in zip(groups, (splits.train, splits.val, splits.test), strict=True):
        for label in range(3):
            first = [picture for picture in part if picture.label == label][:2]
            for column, tile in zip(group.columns, evaluated(splits.root, first, preprocessing), strict=False):
                assert torch.equal(column[label], tile)
    red = [column[splits.classes.index("red")] for column in groups[2].columns]
    assert [bool((tile == 255).all()) for tile in red] == [False, True]
    assert sheet(groups, splits.classes).size == (width(2, 2, 2), 2 * TEXT_PX + 3 * STEP + GAP_PX)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--erasing", "2"], "erasing: '2'"),
        (["--mixup", "some"], "mixup: 'some'"),
        (["--pictures", "1"], "--pictures: 1 is not from 2 to 50"),
        (["--out", "sheet.gif"], "must be a .png or .jpg file"),
        (["--out", "no/such/folder/sheet.png"], "can't be written (No such file or directory)"),
    ],
)
def test_bad_settings_are_told(
    arguments: list[str], message: str, pictures: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """With exit code 2 and no traceback, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    assert main(["show", str(pictures), "--image-px", "32", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))
