"""From an image to the network's input: sizes, mean and std come from the pretrained weights, never retyped.

    decoded image -> base image -> crop -> normalised batch

A *base image* has the short side that evaluation resizes to. It is what a cache keeps (see pixel_cache.py), and both
training and evaluation cut their squares out of it. All are uint8 up to the batch: a quarter of the bytes to move, and
on the CPU torch resizes uint8 several times faster than float. Tensors are (3, H, W) that lie in memory as (H, W, 3),
"channels last", which is how images are decoded, how torch resizes them fastest, and how convolutions want them.
What training does to the squares is in augmentation.py.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from finetune.pretrained import Preprocessing

# A longer image is cut to its middle first. Resized to its short side, a strip of 2 x 60,000 pixels would fill the
# memory; evaluation looks at the middle square in any case.
MAX_ASPECT = 16
RESIZING_STAGES = 4  # Tan and Le, EfficientNetV2, arXiv 2104.00298, table 6


class Transform(Protocol):
    """Cuts a square out of a base image, (3, h, w) uint8 -> (3, side, side) uint8."""

    def __call__(self, image: Tensor, seed: int = 0, side: int | None = None) -> Tensor:
        """Return the square.

        Args:
            seed: of the random numbers; the same seed gives the same square, whatever else draws numbers.
            side: of the square that is returned, in pixels; None for `Preprocessing.crop_px`. It changes the
                resolution, not what part of the image is seen.
        """


def resize_for_cache(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Return the base image of an upright RGB image: (3, h, w) uint8, its short side `preprocessing.resize_px`."""
    pixels: Tensor = v2.functional.pil_to_tensor(image)
    longest = MAX_ASPECT * min(pixels.shape[1:])
    if max(pixels.shape[1:]) > longest:
        pixels = v2.functional.center_crop(pixels, [min(side, longest) for side in pixels.shape[1:]])
    base: Tensor = v2.functional.resize(
        pixels, [preprocessing.resize_px], InterpolationMode(preprocessing.interpolation), antialias=True
    )
    return base


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Return the transform that takes the middle of a base image."""
    return partial(_center_crop, preprocessing=preprocessing)


def stack(images: Sequence[Tensor]) -> Tensor:
    """Return images of one size as a batch (B, 3, H, W), channels last.

    One copy of each; torch.stack() itself would lay the channels out one after the other, at ten times the cost.
    """
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def resized_crop(image: Tensor, box: tuple[int, int, int, int], side: int, preprocessing: Preprocessing) -> Tensor:
    """Return the part of a base image in `box` (top, left, height, width), resized to (3, side, side) uint8."""
    top, left, height, width = box
    # The batch dimension goes in front of all others, and torch, not torchvision, resizes: otherwise the result has
    # its channels one after the other, and turning them around takes as long as the resizing.
    crop = image.permute(1, 2, 0)[None, top : top + height, left : left + width].permute(0, 3, 1, 2)
    if (height, width) == (side, side):
        return crop[0]
    return functional.interpolate(crop, (side, side), mode=preprocessing.interpolation, antialias=True)[0]


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return a batch as the network expects it: (B, 3, H, W) uint8 -> the same in float32, channels last.

    The numbers are those of torchvision's ToDtype(scale=True) and Normalize up to rounding (below 1e-6), in fewer
    passes over the batch.
    """
    count, channels, height, width = images.shape
    scale, shift = _channel_affine(preprocessing, width, images.device)
    # Whole rows of pixels at once: with the channels innermost, broadcasting over them would go in steps of three.
    rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    result = torch.empty(rows.shape, device=images.device)
    # An image stays in a CPU's cache between the three passes, a batch does not.
    step = 1 if images.device.type == "cpu" else count
    for piece, target in zip(torch.split(rows, step), torch.split(result, step), strict=True):
        target.copy_(piece).mul_(scale).add_(shift)
    return result.view(count, height, width, channels).permute(0, 3, 1, 2)


def _center_crop(image: Tensor, seed: int = 0, side: int | None = None, *, preprocessing: Preprocessing) -> Tensor:  # noqa: ARG001
    """Return the central square of `preprocessing.crop_px`; the base image is at least as large."""
    top, left = (round((length - preprocessing.crop_px) / 2) for length in image.shape[1:])
    return resized_crop(
        image, (top, left, preprocessing.crop_px, preprocessing.crop_px), side or preprocessing.crop_px, preprocessing
    )


@cache
def _channel_affine(preprocessing: Preprocessing, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return factor and summand of a row's bytes, (3 * width,) each; kept, as a copy to a GPU has to wait for it."""
    scale = [1 / (255 * std) for std in preprocessing.std]
    shift = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    return torch.tensor(scale * width, device=device), torch.tensor(shift * width, device=device)


def side_at(epoch: int, epochs: int, start_px: int | None, px: int) -> int:
    """Return the side of the training images in pixels: from `start_px` to `px` in four equal stages.

    Progressive resizing (EfficientNetV2, section 4), without its second half: the strength of augmentation and
    regularisation stays the same. Sides in between are multiples of 8.
    """
    stage = min(RESIZING_STAGES * epoch // epochs, RESIZING_STAGES - 1)
    if start_px is None or stage == RESIZING_STAGES - 1:
        return px
    if stage == 0:
        return start_px
    return 8 * round((start_px + (px - start_px) * stage / (RESIZING_STAGES - 1)) / 8)
