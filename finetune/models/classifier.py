"""The network: an ordered list of backbone blocks from input to head, a pooling step, and a new linear head.

A block is the smallest unit that is frozen or trained: a residual block, a transformer layer, a plain convolution with
its norm and activation; stem and last convolution are one block each. Layers between two blocks (pooling,
down-sampling) belong to one of them. So the blocks in order, then pool and head, are the network, and each boundary
between two blocks is a cut into prefix and suffix.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from finetune.config import TIMM_PREFIX
from finetune.errors import ConfigError
from finetune.models.families import check_other_px, split_into_blocks
from finetune.pretrained import is_timm, timm


class Classifier(nn.Module):
    """Backbone blocks, pool, head. `images` (B, 3, H, W) float32, normalised -> logits (B, classes).

    Attributes:
        blocks: the backbone, from input to head.
        pool: turns the last block's output into features (B, D); has no parameters.
        head: dropout and a linear layer, new for the data's classes.
    """

    def __init__(self, blocks: Sequence[nn.Module], pool: nn.Module, features: int, classes: int, dropout: float):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool
        linear = nn.Linear(features, classes)
        self.head = nn.Sequential(nn.Dropout(dropout), linear)
        # From zero, the head's first gradients do not depend on a random draw, whatever the scale of the features,
        # and none flow into the backbone before the head knows something (Kolesnikov et al., BiT, arXiv 1912.11370).
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.suffix(images, 0)

    def prefix(self, images: Tensor, cut: int) -> Tensor:
        """Return the input of block `cut`: the images for 0, the pooled features (B, D) after the last block."""
        hidden = images
        for block in self.blocks[:cut]:
            hidden = block(hidden)
        return self.pool(hidden) if cut == len(self.blocks) else hidden

    def suffix(self, hidden: Tensor, cut: int) -> Tensor:
        """Return the logits (B, classes) for the input of block `cut`, as `prefix` returns it."""
        for block in self.blocks[cut:]:
            hidden = block(hidden)
        logits: Tensor = self.head(hidden if cut == len(self.blocks) else self.pool(hidden))
        return logits


def build_network(backbone: str, image_px: int) -> nn.Module:
    """Return torchvision's or timm's network, randomly initialised from torch's global stream.

    Raises:
        WeightsError: timm is missing.
    """
    if is_timm(backbone):
        return build_timm_network(backbone.removeprefix(TIMM_PREFIX), image_px)
    options: dict[str, object] = {}
    if backbone.startswith("vit"):
        options["image_size"] = image_px
    if backbone == "maxvit_t":
        options["input_size"] = (image_px, image_px)
    if backbone in ("googlenet", "inception_v3"):
        # Auxiliary heads only help training from scratch; transform_input adapts ImageNet's normalisation to the one
        # that these two were trained with.
        options |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    network: nn.Module = torchvision.models.get_model(backbone, weights=None, **options)
    return network


def build_timm_network(architecture: str, image_px: int, **options: Any) -> nn.Module:
    """Return timm's network without a classifier, randomly initialised from torch's global stream.

    Args:
        architecture: timm's name, which may have a weights tag.
        image_px: side of the images, which decides the shapes of some architectures.
        options: of `timm.create_model`, in place of those here.

    Raises:
        WeightsError: timm is missing.
    """
    # timm builds an architecture for its input_size where that is fixed, and keeps it for everybody who asks.
    settings = {"input_size": (3, image_px, image_px), **options.pop("pretrained_cfg_overlay", {})}
    # Several architectures have dropout before their classifier by default; the head of Classifier has its own.
    defaults: dict[str, Any] = {"num_classes": 0, "drop_rate": 0.0, "pretrained_cfg_overlay": settings}
    network: nn.Module = timm().create_model(architecture, **{**defaults, **options})
    return network


def build_meta_network(backbone: str, image_px: int) -> nn.Module:
    """Return the network without memory for its weights (device meta): names, shapes and sizes only."""
    try:
        with torch.device("meta"):
            return build_network(backbone, image_px)
    except NotImplementedError:  # RegNet's constructor computes its widths with tensors
        return build_network(backbone, image_px).to("meta")


def build_classifier(network: nn.Module, classes: int, dropout: float) -> Classifier:
    """Return the network as blocks, with a new head for `classes`."""
    return Classifier(*split_into_blocks(network), classes, dropout)


@cache
def count_blocks(backbone: str, image_px: int, start_px: int | None = None) -> int:
    """Return the number of blocks of the network for `image_px`.

    Decided by a forward pass without memory (device meta).

    Raises:
        ConfigError: it can't take images of `image_px` or `start_px` pixels.
    """
    field, side = "image_px", image_px
    try:
        network = build_meta_network(backbone, image_px)
        with torch.device("meta"), torch.no_grad():
            model = build_classifier(network, 2, 0.0).eval()
            model(torch.zeros(1, 3, side, side))
            if start_px is not None and start_px != image_px:
                field, side = "start_px", start_px
                model(torch.zeros(1, 3, side, side))
        if side != image_px:
            check_other_px(network, side)
    except (RuntimeError, ValueError, AssertionError) as error:
        fault = f"{field}: {backbone} can't take images of {side} pixels ({str(error).splitlines()[0]})"
        raise ConfigError([fault], "the config") from error
    return len(model.blocks)
