"""Grad-CAM overlays: the regions of an image that a prediction rests on, in colour over the grey image."""

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

Heat = np.ndarray[Any, np.dtype[np.float32]]

COLOUR = (255, 120, 0)
MAX_OPACITY = 0.75  # of the colour over the grey image
BATCH_SIZE = 16


def spatial_block(trained: "TrainedModel") -> int:
    """Return the index of the last block whose output (B, C, side, side) has spatial positions.

    Raises:
        UserError: no block has such an output, as in a transformer, for whose tokens Grad-CAM is not made.
    """
    import torch

    block_index = None
    with torch.inference_mode():
        hidden = torch.zeros(1, 3, trained.preprocessing.crop_px, trained.preprocessing.crop_px, device=trained.device)
        for index, block in enumerate(trained.model.blocks):
            hidden = block(hidden)
            # Transformers with windows, such as Swin, have maps (B, side, side, C).
            if hidden.ndim == 4 and hidden.shape[2] == hidden.shape[3] > 1 and hidden.shape[1] != hidden.shape[2]:
                block_index = index
    if block_index is None:
        raise UserError(
            f"{trained.config['backbone']}: no block's output has spatial positions, which Grad-CAM needs; it works "
            "for convolutional networks, such as ResNet, EfficientNet, ConvNeXt, SqueezeNet"
        )
    return block_index


def overlays(trained: "TrainedModel", block: int, root: Path, paths: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Yield path and overlay, uint8 (side, side, 3), of each readable image, in order.

    Args:
        block: index of the block whose output is used.
        root: folder that the paths are relative to.
    """
    from itertools import islice

    import torch

    from finetune.data.transforms import stack
    from finetune.inference.predictor import decode_ahead

    inside = [path for path in paths if thumbnails.is_inside(path)]
    decoded = zip(inside, decode_ahead([root / path for path in inside], trained.preprocessing, 1), strict=True)
    readable = ((path, image) for path, (_, image) in decoded if isinstance(image, torch.Tensor))
    while batch := list(islice(readable, BATCH_SIZE)):
        heats = heat_maps(trained, block, stack([image for _, image in batch]))
        for (path, image), heat in zip(batch, heats, strict=True):
            yield path, overlay(image.permute(1, 2, 0).numpy(), heat)


def heat_maps(trained: "TrainedModel", block: int, images: "Tensor") -> Heat:
    """Return how much each position speaks for the predicted class, (B, h, w) in [0, 1], with maximum 1 per image.

    Args:
        images: (B, 3, side, side) uint8.
    """
    import torch
    from captum.attr import LayerGradCam

    from finetune.data.transforms import normalise

    inputs = normalise(images.to(trained.device), trained.preprocessing)
    with torch.no_grad():
        predictions = trained.model(inputs).argmax(dim=1)
    layer: Classifier | Any = trained.model.blocks[block]
    maps = LayerGradCam(trained.model, layer).attribute(inputs, target=predictions, relu_attributions=True)
    flat = maps.detach()[:, 0].float()
    largest = flat.amax(dim=(1, 2), keepdim=True)
    result: Heat = torch.where(largest > 0, flat / largest, 0.0).cpu().numpy()
    return result


def overlay(image: Array, heat: Heat) -> Array:
    """Return an image (side, side, 3) in grey with `heat` (h, w) over it in colour, uint8, of a thumbnail's size."""
    size = (thumbnails.THUMBNAIL_PX, thumbnails.THUMBNAIL_PX)
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size), dtype=np.float32)[..., None]
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    opacity = MAX_OPACITY * np.clip(np.asarray(smooth), 0, 1)[..., None]
    mixed = (1 - opacity) * grey + opacity * np.array(COLOUR, dtype=np.float32)
    result: Array = mixed.round().astype(np.uint8)
    return result
