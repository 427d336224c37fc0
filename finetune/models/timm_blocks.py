"""timm's networks as ordered blocks. Imports timm when called, not before."""

from typing import Any

from torch import nn

from finetune.models.graph_blocks import Blocks, check_other_size, cut_into_blocks
from finetune.pretrained import timm


def cut_timm_network(network: nn.Module) -> Blocks:
    """Cut a network of `build_timm_network` into blocks.

    Raises:
        ValueError: the network does not return features (B, D).
    """
    settings: Any = network.pretrained_cfg
    return cut_into_blocks(network, settings["input_size"][-1], layer_groups(network))


def check_timm_size(network: nn.Module, other_px: int) -> None:
    """Raise ValueError if the blocks of a network of `build_timm_network` can't be used for images of `other_px`."""
    settings: Any = network.pretrained_cfg
    check_other_size(network, settings["input_size"][-1], other_px, layer_groups(network))


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


def layer_groups(network: Any) -> dict[str, int] | None:
    """Return the layer group of each parameter, counted from the input; None if timm does not define them."""
    from timm.models import group_parameters

    try:
        groups: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    except Exception:  # a matcher that does not fit its own network raises many kinds
        return None
    names = [name for name, _ in network.named_parameters()]
    return groups if set(groups) == set(names) else None
