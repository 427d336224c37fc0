"""`python -m finetune.data show`: a contact sheet of what training sees of some images, by level of augmentation.

    python -m finetune.data show demo --erasing 1 --mixup 1 --cutmix 1 --image-px 80 --out docs/augmentation.jpg

A row is an image: first as evaluation sees it, then as the first epochs of a run would. It is drawn by what training
itself uses.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from finetune.config import Config, parse_config
from finetune.data import catalog
from finetune.data.augmentation import LEVELS, mix, train_transform
from finetune.data.dataset import ImageDataset
from finetune.data.layout import read_layout
from finetune.data.scan import load_or_scan
from finetune.data.splits import Sample, Splits, find_splits
from finetune.data.transforms import eval_transform, normalise, stack
from finetune.errors import UserError
from finetune.pretrained import Preprocessing, preprocessing_of
from finetune.seeds import stream_seed
from finetune.system.atomic import WriteError, replacing

DEFAULT_OUT = Path("augmentation.png")
VIEWS = 3  # of each image and level: those of the first epochs
MAX_IMAGES = 50
TILE_PX, GAP_PX, GROUP_GAP_PX, TEXT_PX, LABEL_PX = 80, 3, 14, 13, 110
WHITE, BLACK = (255, 255, 255), (30, 30, 30)


class SheetColumns(NamedTuple):
    """Columns of the sheet under a title; each is a batch with an image for each row, (B, 3, side, side) uint8."""

    title: str
    columns: list[Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("data", metavar="DATA", help="a folder of images, or as in --data")
    levels = ["none", *LEVELS]
    parser.add_argument(
        "--augment", choices=levels, help="draw this level only, with erasing, mixup and cutmix combined"
    )
    parser.add_argument(
        "--erasing", default=0.0, metavar="SHARE", help="erase a random part of this share of the views"
    )
    parser.add_argument("--mixup", default=0.0, metavar="ALPHA", help="show MixUp, too")
    parser.add_argument("--cutmix", default=0.0, metavar="ALPHA", help="show CutMix, too")
    parser.add_argument("--image-px", metavar="PX", help="side of the square the network sees (default: as in a run)")
    parser.add_argument("--pictures", type=int, default=5, metavar="N", help="rows (default: %(default)s)")
    parser.add_argument("--seed", default=0, help="of the run (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="a .png or .jpg file (default: %(default)s)")


def main(options: argparse.Namespace) -> int:
    """Write the sheet, print its path, and return the exit code.

    Raises:
        UserError: a setting is out of its range, the data can't be used, or there is no such folder to write to.
        WriteError: the disk is full, for example; an earlier file stays intact.
    """
    if not 2 <= options.pictures <= MAX_IMAGES:
        raise UserError(f"--pictures: {options.pictures} is not from 2 to {MAX_IMAGES}")
    if options.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--out: {options.out} must be a .png or .jpg file")
    names = ("data", "augment", "erasing", "mixup", "cutmix", "image_px", "seed")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    config = parse_config(settings, "the command line")
    place = catalog.locate(config.data)
    layout = read_layout(place)
    splits = find_splits(layout, 0, scan=load_or_scan(layout.root, layout.paths(), catalog.fingerprint(place)))
    chosen = choose(splits, options.pictures)
    groups = list(views(config, splits, chosen, only=options.augment is not None))
    names_of_rows = [splits.classes[image.label] for image in chosen]
    image = sheet(groups, names_of_rows)
    kind = "PNG" if options.out.suffix.lower() == ".png" else "JPEG"
    try:
        with replacing(options.out) as temporary:
            image.save(temporary, kind, optimize=True, quality=90)
    except WriteError:
        raise
    except OSError as error:
        raise UserError(f"--out: {options.out} can't be written ({error.strerror or error})") from error
    print(f"{options.out}: {len(chosen)} training images, {', '.join(group.title for group in groups)}")
    return 0


def choose(splits: Splits, count: int) -> list[Sample]:
    """Return training images, from as many classes as there are, the first of each class first."""
    seen: dict[int, int] = {}
    ranked = []
    for image in splits.train:
        seen[image.label] = seen.get(image.label, 0) + 1
        ranked.append((seen[image.label], image.label, image))
    return [image for *_, image in sorted(ranked, key=lambda item: item[:2])[:count]]


def by_split(splits: Splits, preprocessing: Preprocessing, each: int = VIEWS) -> list[SheetColumns]:
    """Return a group for each split, as evaluation sees it: a row for each class, its first `each` images.

    Where a class has fewer, the squares stay white.
    """
    white = torch.full((3, preprocessing.crop_px, preprocessing.crop_px), 255, dtype=torch.uint8)
    groups = []
    for name, part in (("train", splits.train), ("val", splits.val), ("test", splits.test)):
        rows = []
        for label in range(len(splits.classes)):
            first = [image for image in part if image.label == label][:each]
            tiles = [*evaluated(splits.root, first, preprocessing)] if first else []
            rows.append(tiles + [white] * (each - len(first)))
        columns = [stack(list(column)) for column in zip(*rows, strict=True)]
        groups.append(SheetColumns(f"{name}: {len(part)}", columns))
    return groups


def evaluated(root: Path, images: Sequence[Sample], preprocessing: Preprocessing) -> Tensor:
    """Return images as evaluation sees them, (B, 3, side, side) uint8."""
    return _batch(ImageDataset(root, images, preprocessing, eval_transform(preprocessing)), "")


def views(config: Config, splits: Splits, chosen: Sequence[Sample], only: bool) -> Iterator[SheetColumns]:
    """Yield the groups of columns.

    Args:
        only: one group, of the config as it is; else one for each level, and then one for each extra that is on.
    """
    preprocessing = preprocessing_of(config.backbone, config.weights, config.image_px)
    yield SheetColumns("evaluation", [evaluated(splits.root, chosen, preprocessing)])
    if only:
        extras = [f"{name} {value:g}" for name in ("erasing", "mixup", "cutmix") if (value := getattr(config, name))]
        yield _group(" + ".join([config.augment, *extras]), config, splits, chosen, preprocessing)
        return
    plain = config.model_copy(update={"erasing": 0.0, "mixup": 0.0, "cutmix": 0.0})
    for level in LEVELS:
        yield _group(level, plain.model_copy(update={"augment": level}), splits, chosen, preprocessing)
    for name in ("erasing", "mixup", "cutmix"):
        if value := getattr(config, name):
            yield _group(f"{name} {value:g}", plain.model_copy(update={name: value}), splits, chosen, preprocessing)


def _group(
    title: str, config: Config, splits: Splits, chosen: Sequence[Sample], preprocessing: Preprocessing
) -> SheetColumns:
    """Return the views of a run's first epochs, with the images as a batch of their own."""
    images = ImageDataset(
        splits.root, chosen, preprocessing, train_transform(preprocessing, config.augment, config.erasing)
    )
    columns = [_batch(images, f"seed {config.seed} epoch {epoch}") for epoch in range(VIEWS)]
    if config.mixup or config.cutmix:
        labels = torch.tensor([image.label for image in chosen])
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        for epoch, batch in enumerate(columns):
            seed = stream_seed(config.seed, "mix", epoch, 0)
            mixed, _ = mix(
                normalise(batch, preprocessing), labels, len(splits.classes), config.mixup, config.cutmix, seed
            )
            columns[epoch] = ((mixed * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return SheetColumns(title, columns)


def _batch(images: ImageDataset, draw: str) -> Tensor:
    return stack([images[draw, index, None][0] for index in range(len(images))])


def sheet(groups: Sequence[SheetColumns], rows: Sequence[str]) -> Image.Image:
    """Return the groups side by side, a row for each image, with its class before it."""
    font = ImageFont.load_default(TEXT_PX)
    step, top = TILE_PX + GAP_PX, 2 * TEXT_PX
    width = LABEL_PX + sum(len(group.columns) * step + GROUP_GAP_PX for group in groups)
    image = Image.new("RGB", (width, top + len(rows) * step + GAP_PX), WHITE)
    draw = ImageDraw.Draw(image)
    for row, name in enumerate(rows):
        draw.text((GAP_PX, top + row * step + TILE_PX // 2), _short(name, font), BLACK, font, anchor="lm")
    left = LABEL_PX
    for group in groups:
        draw.text((left, top // 2), group.title, BLACK, font, anchor="lm")
        for batch in group.columns:
            for row, tile_pixels in enumerate(batch):
                tile = Image.fromarray(tile_pixels.permute(1, 2, 0).contiguous().numpy())
                image.paste(tile.resize((TILE_PX, TILE_PX)), (left, top + row * step))
            left += step
        left += GROUP_GAP_PX
    return image


def _short(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return a name cut to the room there is."""
    while font.getlength(name) > LABEL_PX - 2 * GAP_PX:
        name = name.rstrip("…")[:-1] + "…"
    return name
