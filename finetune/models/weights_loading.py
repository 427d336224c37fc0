"""Loads the tensors of a weights file into a network, and checks whether they fit it."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from finetune.config import TIMM_PREFIX
from finetune.errors import WeightsError
from finetune.models.classifier import build_classifier, build_meta_network, build_timm_network
from finetune.models.weights_file import WeightsFile, strip_prefix
from finetune.pretrained import is_timm, published_weights


def load_into(network: nn.Module, backbone: str, weights: str, file: WeightsFile, path: Path, image_px: int) -> None:
    """Load a file's weights into a network of `build_network`, except its last layer, which is going to be replaced.

    Position embeddings are interpolated to `image_px`.

    Args:
        weights: their name, as in the config.
        path: of the file, for messages.

    Raises:
        WeightsError: they are not of this backbone.
    """
    if file.backbone is not None:
        _load_checkpoint(network, backbone, file, path)
    elif is_timm(backbone):
        _load_timm(network, backbone, weights, file.state, path, image_px)
    else:
        _load_torchvision(network, backbone, strip_prefix(file.state, network.state_dict(), path), image_px)


def check_fit(backbone: str, weights: str, file: WeightsFile, path: Path, image_px: int) -> None:
    """Check names and shapes against the backbone, without allocating it.

    Raises:
        WeightsError: they do not fit; the message counts what is missing, unknown, or of another shape.
    """
    if file.backbone is None and not is_timm(backbone):
        own = build_meta_network(backbone, 224).state_dict()
        last = list(own)[-1].rpartition(".")[0]  # the classifier's last layer; any number of classes will do
        free = (f"{last}.", "encoder.pos_embedding", "aux1.", "aux2.", "AuxLogits.")
        _compare(own, strip_prefix(file.state, own, path), free, backbone, path)
        return
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        load_into(build_meta_network(backbone, image_px), backbone, weights, file, path, image_px)


def _load_torchvision(network: nn.Module, backbone: str, state: dict[str, Tensor], image_px: int) -> None:
    if backbone.startswith("vit"):
        patch = int(backbone.rsplit("_", 1)[-1])
        # With reset_heads the classifier's weights are dropped, whatever their number of classes.
        state = dict(interpolate_embeddings(image_px, patch, dict(state), reset_heads=True))
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    network.load_state_dict(state, strict=False)


def _load_checkpoint(network: nn.Module, backbone: str, file: WeightsFile, path: Path) -> None:
    """Load the backbone of an earlier run: its checkpoint has the names of a `Classifier`, which shares the modules."""
    if file.backbone != backbone:
        raise WeightsError(f"weights: {path} is the checkpoint of a run with {file.backbone}, not {backbone}")
    blocks = build_classifier(network, 1, 0.0).blocks
    state = {name.removeprefix("blocks."): value for name, value in file.state.items() if name.startswith("blocks.")}
    _compare(blocks.state_dict(), state, (), backbone, path)
    blocks.load_state_dict(state)


def _load_timm(
    network: nn.Module, backbone: str, weights: str, state: dict[str, Tensor], path: Path, image_px: int
) -> None:
    """Load the weights as timm does, into a second network that has the file's classifier.

    timm's own loading converts names and position embeddings. It is strict only with a classifier of the file's number
    of classes: without one, it would accept the weights of another network.
    """
    tag = f".{weights}" if weights in published_weights(backbone) and weights != "DEFAULT" else ""
    layers = network.pretrained_cfg["classifier"] or ()  # type: ignore[index]
    own = build_meta_network(backbone, image_px).state_dict()
    state = strip_prefix(state, own, path)
    first = layers if isinstance(layers, str) else next(iter(layers), "")
    classes = len(state[f"{first}.weight"]) if f"{first}.weight" in state else 0
    source = {"state_dict": state, "num_classes": classes, "label_offset": None, "custom_load": False}
    options: dict[str, Any] = {"pretrained": True, "num_classes": classes, "pretrained_cfg_overlay": source}
    try:
        loaded = build_timm_network(backbone.removeprefix(TIMM_PREFIX) + tag, image_px, **options)
    except (RuntimeError, KeyError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise WeightsError(f"weights: {path} is not a state dict of {backbone}: {_summary(str(error))}") from error
    loaded.reset_classifier(0)  # type: ignore[operator]
    network.load_state_dict(loaded.state_dict())


def _compare(
    own: dict[str, Tensor], state: dict[str, Tensor], free: tuple[str, ...], backbone: str, path: Path
) -> None:
    """Raise WeightsError if names or shapes differ; names that begin with one of `free` do not count."""
    needed = {name for name in own if not name.startswith(free) and not name.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    foreign = sorted(name for name in set(state) - set(own) if not name.startswith(free))
    shapes = sorted(name for name in needed & set(state) if state[name].shape != own[name].shape)
    if missing or foreign or shapes:
        raise WeightsError(f"weights: {path} is not a state dict of {backbone}: {_counts(missing, foreign, shapes)}")


def _summary(message: str) -> str:
    """Return torch's message about a state dict that does not fit, which may list a thousand names, in one line."""
    listed = [re.search(rf"{kind} key\(s\) in state_dict: (.*)", message) for kind in ("Missing", "Unexpected")]
    missing, foreign = (re.findall(r'"([^"]+)"', match[1]) if match else [] for match in listed)
    shapes = re.findall(r"size mismatch for ([^:]+):", message)
    return _counts(missing, foreign, shapes) or message.strip().splitlines()[0]


def _counts(missing: Sequence[str], foreign: Sequence[str], shapes: Sequence[str]) -> str:
    faults = ((missing, "tensors missing"), (foreign, "unknown"), (shapes, "of another shape"))
    return ", ".join(f"{len(names)} {fault} (such as {names[0]})" for names, fault in faults if names)
