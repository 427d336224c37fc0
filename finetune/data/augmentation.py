"""Augmentation: a random crop and flip, changes of colour and shape, random erasing, MixUp and CutMix.

`python -m finetune.data show DATA` draws it. All random numbers depend on the image's seed.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from finetune.data.transforms import Transform, eval_transform, resized_crop
from finetune.pretrained import Preprocessing
from finetune.seeds import seeded_rng, stream_seed


class AugmentationLevel(NamedTuple):
    """A level of augmentation; all of them also flip half of the images.

    Attributes:
        crop_scale: the smallest and the largest share of the image's area that a crop has.
        distorts: whether one of TrivialAugment's changes follows, drawn anew for each image: of colour, contrast,
            sharpness, or a rotation, shear or shift (Mueller and Hutter, arXiv 2103.10158; the wide space).
    """

    crop_scale: tuple[float, float]
    distorts: bool = False


# torchvision's default for ImageNet crops down to 0.08. With few epochs a crop should rather show the object: standard
# stops at a quarter, light is for things that fill the image or differ in detail. Choices, not compared yet.
LEVELS = {
    "light": AugmentationLevel((0.7, 1.0)),
    "standard": AugmentationLevel((0.25, 1.0)),
    "strong": AugmentationLevel((0.08, 1.0), distorts=True),
}

# torchvision's RandomResizedCrop: sides of a crop in these proportions, and so many tries before it takes the middle.
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10


def train_transform(preprocessing: Preprocessing, augment: str, erasing: float = 0.0) -> Transform:
    """Return the transform that augments as `Config.augment` and `Config.erasing` say.

    Args:
        augment: none, or one of LEVELS.
        erasing: share of the views of which a random rectangle, a fiftieth to a third of the area, becomes the mean
            colour (Random Erasing, arXiv 1708.04896; torchvision's RandomErasing).
    """
    transform = (
        eval_transform(preprocessing)
        if augment == "none"
        else partial(_random_view, preprocessing=preprocessing, level=LEVELS[augment])
    )
    return partial(_erased, view_of=transform, erase=_eraser(preprocessing, erasing)) if erasing else transform


def random_crop(
    height: int, width: int, numbers: Sequence[float], scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop, distributed as torchvision's RandomResizedCrop draws them.

    Args:
        height, width: of the image.
        numbers: 2 * CROP_ATTEMPTS + 2 uniform ones in [0, 1).
        scale: the smallest and the largest share of the image's area.
    """
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    for attempt in range(CROP_ATTEMPTS):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[2 * attempt + 2])
        ratio = math.exp(low + (high - low) * numbers[2 * attempt + 3])
        tall, wide = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            return int((height - tall + 1) * numbers[0]), int((width - wide + 1) * numbers[1]), tall, wide
    tall = min(height, round(width / CROP_RATIO[0]))
    wide = min(width, round(height * CROP_RATIO[1]))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def _random_view(
    image: Tensor, seed: int = 0, side: int | None = None, *, preprocessing: Preprocessing, level: AugmentationLevel
) -> Tensor:
    """Return a random resized crop, flipped half of the time, changed as the level says."""
    generator = torch.Generator().manual_seed(seed)
    flip, *numbers = torch.rand(2 * CROP_ATTEMPTS + 3, generator=generator).tolist()
    box = random_crop(image.shape[1], image.shape[2], numbers, level.crop_scale)
    view = resized_crop(image, box, side or preprocessing.crop_px, preprocessing)
    view = view.flip(2) if flip < 0.5 else view
    if not level.distorts:
        return view
    with seeded_rng(stream_seed("distort", seed)):
        # What turns into view is the mean colour: the network's zero. Shifts are in pixels of the square, up to 32.
        distorted: Tensor = v2.TrivialAugmentWide(
            interpolation=InterpolationMode.BILINEAR, fill=mean_colour(preprocessing)
        )(view)
        return distorted


def _erased(
    image: Tensor, seed: int = 0, side: int | None = None, *, view_of: Transform, erase: v2.RandomErasing
) -> Tensor:
    """Return a view with a random part erased, or not; the rest is as without erasing."""
    view = view_of(image, seed, side)
    with seeded_rng(stream_seed("erase", seed)):
        erased: Tensor = erase(view)
        return erased


def _eraser(preprocessing: Preprocessing, share: float) -> v2.RandomErasing:
    return v2.RandomErasing(p=share, value=mean_colour(preprocessing))


def mean_colour(preprocessing: Preprocessing) -> list[int]:
    """Return the colour that is zero, or nearly, once an image is normalised: three bytes."""
    return [round(255 * mean) for mean in preprocessing.mean]


def mix(images: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return a batch mixed with itself shifted by one, and the share of each class in each image.

    MixUp (Zhang et al., arXiv 1710.09412) adds up the two images, CutMix (Yun et al., arXiv 1905.04899) pastes a
    rectangle of one into the other; both by torchvision. The batch has one share for all of its images, drawn from
    Beta(alpha, alpha). Only the seed matters; torch's random state does not change.

    Args:
        images: (B, 3, H, W) float32, normalised, channels last.
        labels: (B,) int64.
        mixup, cutmix: their alphas, 0 for not at all; if both are on, a batch gets either, with equal chances.

    Returns:
        images as before, and targets (B, classes) float32 whose rows add up to 1.
    """
    mixers = [
        kind(alpha=alpha, num_classes=classes) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha
    ]
    with seeded_rng(seed):
        mixed, targets = v2.RandomChoice(mixers)(images, labels)
    return mixed.contiguous(memory_format=torch.channels_last), targets
