"""Grad-CAM: which places of an image a prediction rests on, drawn over the image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from finetune.data import thumbnails
from finetune.data.thumbnails import Array
from finetune.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.inference.predictor import TrainedModel
    from finetune.models.classifier import Classifier


COLOUR = (255, 120, 0)  # over grey; where it is strongest, it covers this share of the picture:


STRONGEST = 0.75


BATCH_SIZE = 16


BY_TOKENS = ("swin",)  # their maps are (B, side, side, C), which a side of as many channels would hide


def spatial_block(trained: "TrainedModel") -> int:
    """Return the number of the last block whose output (B, C, side, side) has places.

    Raises:
        UserError: no block's output has: it is a transformer, say, whose tokens Grad-CAM is not made for.
    """
    import torch

    if trained.config["backbone"].startswith(BY_TOKENS):
        raise UserError(_no_places(trained))
    found = None
    with torch.inference_mode():
        hidden = torch.zeros(1, 3, trained.to.crop_px, trained.to.crop_px, device=trained.device)
        for number, block in enumerate(trained.model.blocks):
            hidden = block(hidden)
            if hidden.ndim == 4 and hidden.shape[2] == hidden.shape[3] > 1:
                found = number
    if found is None:
        raise UserError(_no_places(trained))
    return found


def _no_places(trained: "TrainedModel") -> str:
    return (
        f"{trained.config['backbone']}: no block's output is a map of places, which Grad-CAM needs; it works for "
        "convolutional networks, such as ResNet, EfficientNet, ConvNeXt, SqueezeNet"
    )


def overlays(trained: "TrainedModel", block: int, root: Path, paths: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Yield path and overlay, uint8 (side, side, 3), of each picture that can be read, in order.

    Args:
        block: number of the one whose output is looked at.
        root: of the data, which the paths start from.
    """
    from itertools import islice

    import torch

    from finetune.data.transforms import stack
    from finetune.inference.predictor import decode_ahead

    inside = [path for path in paths if thumbnails.is_inside(path)]
    found = zip(inside, decode_ahead([root / path for path in inside], trained.to, 1), strict=True)
    read = ((path, square) for path, (_, square) in found if isinstance(square, torch.Tensor))
    while group := list(islice(read, BATCH_SIZE)):
        images = stack([square for _, square in group])
        for (path, square), heat in zip(group, heat_maps(trained, block, images), strict=True):
            yield path, overlay(square.permute(1, 2, 0).numpy(), heat)


def heat_maps(trained: "TrainedModel", block: int, images: "Tensor") -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return how much each place speaks for the answer, (B, h, w) in [0, 1], each picture's strongest being 1.

    Args:
        images: (B, 3, side, side) uint8.
    """
    import torch
    from captum.attr import LayerGradCam

    from finetune.data.transforms import normalise

    inputs = normalise(images.to(trained.device), trained.to)
    with torch.no_grad():
        answers = trained.model(inputs).argmax(dim=1)
    layer: Classifier | Any = trained.model.blocks[block]
    maps = LayerGradCam(trained.model, layer).attribute(inputs, target=answers, relu_attributions=True)
    flat = maps.detach()[:, 0].float()
    most = flat.amax(dim=(1, 2), keepdim=True)
    result: np.ndarray[Any, np.dtype[np.float32]] = torch.where(most > 0, flat / most, 0.0).cpu().numpy()
    return result


def overlay(picture: Array, heat: np.ndarray[Any, np.dtype[np.float32]]) -> Array:
    """Return a picture (side, side, 3) in grey with `heat` (h, w) over it in colour, uint8, of a thumbnail's size."""
    size = (thumbnails.THUMBNAIL_PX, thumbnails.THUMBNAIL_PX)
    grey = np.asarray(Image.fromarray(picture).convert("L").resize(size), dtype=np.float32)[..., None]
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = STRONGEST * np.clip(np.asarray(smooth), 0, 1)[..., None]
    mixed = (1 - share) * grey + share * np.array(COLOUR, dtype=np.float32)
    result: Array = mixed.round().astype(np.uint8)
    return result
