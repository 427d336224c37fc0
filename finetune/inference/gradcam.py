"""Grad-CAM overlays: the regions of an image that a prediction rests on, in colour over the grey image."""

from collections.abc import Iterator, Sequence
from math import isqrt
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
MAX_EXTRA_TOKENS = 8  # before those of the patches


def spatial_block(trained: "TrainedModel") -> int:
    """Return the index of the last block whose output has a map that the prediction depends on.

    In a transformer that classifies by its class token, that is the block before the last: the other tokens of the last
    block's output are not used any more.

    Raises:
        UserError: no block has such an output.
    """
    import torch

    side = trained.preprocessing.crop_px
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(trained.device)
    for index in reversed(range(len(trained.model.blocks))):
        _, gradients = _activations(trained.model, index, image)
        maps = as_maps(gradients)
        if maps is not None and maps.abs().amax() > 0:
            return index
    raise UserError(
        f"{trained.config['backbone']}: no block's output has spatial positions, which Grad-CAM needs; it works for "
        "convolutional networks and for transformers that keep one token per patch"
    )


def as_maps(hidden: "Tensor") -> "Tensor | None":
    """Return a block's output for square images as maps (B, C, h, w), or None if it has no spatial positions.

    Outputs have the shapes (B, C, h, w), (B, h, w, C) in transformers with windows, or (B, tokens, C), the tokens of
    the patches after at most `MAX_EXTRA_TOKENS` others (class, distillation, registers).
    """
    if hidden.ndim == 4 and hidden.shape[2] == hidden.shape[3] > 1 and hidden.shape[1] != hidden.shape[2]:
        return hidden
    if hidden.ndim == 4 and hidden.shape[1] == hidden.shape[2] > 1:
        return hidden.permute(0, 3, 1, 2)
    if hidden.ndim == 3:
        side = isqrt(hidden.shape[1])
        if side > 1 and hidden.shape[1] - side * side <= MAX_EXTRA_TOKENS:
            patches = hidden[:, hidden.shape[1] - side * side :]
            return patches.reshape(len(hidden), side, side, -1).permute(0, 3, 1, 2)
    return None


def _activations(model: "Classifier", block: int, inputs: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Return the output of a block, and the gradient of the predicted class's logit with respect to it."""
    import torch

    with torch.no_grad():
        hidden = inputs
        for module in model.blocks[: block + 1]:
            hidden = module(hidden)
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        result = hidden
        for module in model.blocks[block + 1 :]:
            result = module(result)
        logits = model.head(model.pool(result))
        (gradients,) = torch.autograd.grad(logits.amax(dim=1).sum(), hidden)
    return hidden.detach(), gradients


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

    Grad-CAM (Selvaraju et al., arXiv 1610.02391): the channels' maps, weighted by their mean gradients.

    Args:
        images: (B, 3, side, side) uint8.
    """
    import torch

    from finetune.data.transforms import normalise

    inputs = normalise(images.to(trained.device), trained.preprocessing)
    maps, slopes = (as_maps(tensor) for tensor in _activations(trained.model, block, inputs))
    assert maps is not None, "spatial_block() chose the block"
    assert slopes is not None, "a gradient has the shape of its activations"
    heat = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu().float()
    largest = heat.amax(dim=(1, 2), keepdim=True)
    result: Heat = torch.where(largest > 0, heat / largest, 0.0).cpu().numpy()
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
