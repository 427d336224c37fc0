"""timm's networks as ordered blocks. Imports timm when called, not before."""

from functools import cache
from typing import Any

import torch
from torch import nn

from finetune.models.graph_blocks import Blocks, cut_into_blocks


def cut_timm_network(network: nn.Module, image_px: int) -> Blocks:
    """Cut a network of `timm.create_model(..., num_classes=0, drop_rate=0.0)` into blocks.

    Raises:
        ValueError: the network does not return features (B, D).
    """
    return cut_into_blocks(network, image_px, layer_groups(network))


def outline(arch: str, image_px: int) -> Blocks:
    """Return the blocks of timm's network without memory for weights (device meta): names, shapes and sizes only.

    Raises:
        ValueError: the network does not return features (B, D), or takes no images of this size.
    """
    try:
        with torch.device("meta"):
            network = build_timm_network(arch, image_px)
    except (NotImplementedError, RuntimeError):  # a constructor that computes with tensors
        network = build_timm_network(arch, image_px)
    return cut_timm_network(network.to("meta"), image_px)


def build_timm_network(arch: str, image_px: int) -> nn.Module:
    """Return timm's network without a classifier, randomly initialised from torch's global stream."""
    import timm

    size = {"img_size": image_px} if _has_fixed_size(arch) else {}
    # Several architectures have dropout before their classifier by default; the head has its own.
    network: nn.Module = timm.create_model(arch, num_classes=0, drop_rate=0.0, **size)
    return network


@cache
def _has_fixed_size(arch: str) -> bool:
    """Whether a network is built for one size of images."""
    import timm

    entry = timm.models.get_pretrained_cfg(arch)
    return bool(entry is not None and entry.fixed_input_size)


def layer_groups(network: Any) -> dict[str, int] | None:
    """Return the layer group of each parameter, counted from the input; None if timm does not define them."""
    from timm.models import group_parameters

    try:
        groups: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    except Exception:  # a matcher that does not fit its own network raises many kinds
        return None
    names = [name for name, _ in network.named_parameters()]
    return groups if set(groups) == set(names) else None
