"""From a picture to the network's input: sizes, mean and std come from the pretrained weights, never retyped."""

from dataclasses import dataclass

import torch
import torchvision
from torch import nn
from torchvision.transforms import InterpolationMode, v2

# Crops down to a quarter of the picture, where torchvision's default for ImageNet goes down to 0.08: with few epochs a
# crop should rather show the object. A choice, not compared with others yet.
CROP_SCALE = (0.25, 1.0)


@dataclass(frozen=True)
class Preprocessing:
    """What the network expects. `resize_px` is the short side before the central crop of `crop_px` x `crop_px`."""

    resize_px: int
    crop_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


def preprocessing(backbone: str, weights: str, image_px: int | None) -> Preprocessing:
    """Return the preprocessing of the weights, at `image_px` if given (the resize keeps its ratio to the crop).

    Weights that are no torchvision name (a path, none) are taken to expect what the backbone's own do.
    """
    choices = torchvision.models.get_model_weights(backbone)
    weight = choices[weights] if weights in choices.__members__ else choices.DEFAULT
    preset = weight.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    side = image_px or crop
    return Preprocessing(
        resize_px=max(side, round(resize * side / crop)),
        crop_px=side,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def eval_transform(to: Preprocessing) -> nn.Module:
    """Return PIL picture -> (3, crop_px, crop_px) float32, normalised: resize, central crop."""
    resize = v2.Resize(to.resize_px, InterpolationMode(to.interpolation), antialias=True)
    return _chain(v2.PILToTensor(), resize, v2.CenterCrop(to.crop_px), *_normalise(to))


def train_transform(to: Preprocessing, augment: str) -> nn.Module:
    """Return PIL picture -> (3, crop_px, crop_px) float32, normalised, augmented as `Config.augment` says.

    The random numbers are torch's global ones; `loading` seeds them for each picture.
    """
    if augment == "none":
        return eval_transform(to)
    crop = v2.RandomResizedCrop(
        to.crop_px, scale=CROP_SCALE, interpolation=InterpolationMode(to.interpolation), antialias=True
    )
    return _chain(v2.PILToTensor(), crop, v2.RandomHorizontalFlip(), *_normalise(to))


def _chain(*steps: nn.Module) -> nn.Module:
    chain: nn.Module = v2.Compose(steps)
    return chain


def _normalise(to: Preprocessing) -> list[nn.Module]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(to.mean), list(to.std))]
