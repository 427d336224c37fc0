"""Pretrained weights: which ones a config means, whether they fit the backbone, and loading them into it."""

import hashlib
import logging
import os
import re
from functools import cache
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from finetune.errors import WeightsError, nearest
from finetune.models.classifier import build_meta_network
from finetune.models.torch_files import read_state_dict
from finetune.system import locks
from finetune.system.checksums import quarantine
from finetune.system.download import RequiredFile, fetch, sha256
from finetune.system.environment import cache_folder

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "FINETUNE_WEIGHTS_URL"  # of a folder that has torchvision's files, in place of its own server


@cache
def weights_hash(backbone: str, weights: str, checked: bool = False) -> str:
    """Return an identifier of the weights' content: a file's SHA-256, or the file name that torchvision publishes.

    Downloads and trains nothing. Checks a file against the backbone, unless it was `checked` before.

    Raises:
        WeightsError: no such weights, or a file that is not of this backbone.
    """
    if weights.lower() == "none":
        return "none"
    if weights == "demo":
        from finetune.models.demo_weights import DEMO_BACKBONE, DEMO_WEIGHTS_VERSION

        if backbone != DEMO_BACKBONE:
            raise WeightsError(f"weights: demo are for backbone {DEMO_BACKBONE}, not {backbone}")
        return str(DEMO_WEIGHTS_VERSION)
    published = torchvision.models.get_model_weights(backbone)
    if weights in published.__members__:
        return str(published[weights].url).rsplit("/", 1)[-1]
    path = Path(weights).expanduser()
    if not path.is_file():
        known = [*published.__members__, "none"]
        raise WeightsError(
            f"weights: {weights!r} is no file, and {backbone} has no weights of this name."
            f"{nearest(weights, known)} Known: {', '.join(known)}, or a path to a state dict"
        )
    if not checked:
        _check_fit(read_state_dict(path), backbone, path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def download_weights(backbone: str, weights: str) -> None:
    """Download the weights, or pretrain the demo's, unless they are on this machine.

    Raises:
        DownloadError, DiskFullError: they can't be fetched.
    """
    if weights.lower() != "none":
        _weights_file(backbone, weights)


def load_weights(network: nn.Module, backbone: str, weights: str, image_px: int) -> None:
    """Load the weights into torchvision's network, except its last layer, which is going to be replaced.

    A vision transformer's position embedding is interpolated to `image_px`.

    Raises:
        WeightsError: they are not of this backbone.
        DownloadError, DiskFullError: they can't be fetched.
    """
    state = read_state_dict(_weights_file(backbone, weights))
    if backbone.startswith("vit"):
        patch = int(backbone.rsplit("_", 1)[-1])
        # With reset_heads the classifier's weights are dropped, whatever their number of classes.
        state = dict(interpolate_embeddings(image_px, patch, dict(state), reset_heads=True))
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    network.load_state_dict(state, strict=False)


def _weights_file(backbone: str, weights: str) -> Path:
    """Return the file of these weights, after downloading it or pretraining the demo's if needed."""
    if weights == "demo":
        from finetune.models.demo_weights import demo_weights_path

        cache_folder().mkdir(parents=True, exist_ok=True)
        with locks.hold(cache_folder() / "demo.lock"):  # of several runs that start at once, one pretrains
            return demo_weights_path()
    published = torchvision.models.get_model_weights(backbone)
    if weights not in published.__members__:
        return Path(weights).expanduser()
    missing = required_weights(backbone, weights)
    path = _weights_path(str(published[weights].url))
    digest = _digest(path.name)
    if digest is not None and path.is_file() and not sha256(path).startswith(digest):
        logger.info(f"{path} is damaged: renamed to {quarantine(path).name}; fetched again")
        missing = required_weights(backbone, weights)
    if missing is not None:
        fetch(missing, digest)
    return path


def required_weights(backbone: str, weights: str) -> RequiredFile | None:
    """Return the file to download if these weights are published and not on this machine, else None."""
    published = torchvision.models.get_model_weights(backbone)
    if weights not in published.__members__:
        return None
    entry = published[weights]
    path = _weights_path(str(entry.url))
    if path.is_file():
        return None
    size = float(entry.meta.get("_file_size", 0)) * 1e6
    return RequiredFile(f"weights {backbone} {weights}", _url(str(entry.url)), path, size)


def _url(published: str) -> str:
    """Return the address to download from."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{published.rsplit('/', 1)[-1]}" if mirror else published


def _weights_path(url: str) -> Path:
    """Return the path that torchvision's own loading uses, too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _digest(name: str) -> str | None:
    """Return the first digits of the SHA-256, which the file's name ends with: resnet18-f37072fd.pth."""
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    return match[1] if match else None


def _check_fit(state: dict[str, Tensor], backbone: str, path: Path) -> None:
    """Check names and shapes of all but the last layer against the backbone, without allocating it."""
    own = build_meta_network(backbone, 224).state_dict()
    last = list(own)[-1].rpartition(".")[0]  # the classifier's last layer; any number of classes will do
    free = (f"{last}.", "encoder.pos_embedding", "aux1.", "aux2.", "AuxLogits.")
    needed = {name for name in own if not name.startswith(free) and not name.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    foreign = sorted(name for name in set(state) - set(own) if not name.startswith(free))
    shapes = sorted(name for name in needed & set(state) if state[name].shape != own[name].shape)
    if missing or foreign or shapes:
        counts = [
            f"{len(names)} {fault} (such as {names[0]})"
            for names, fault in (
                (missing, "tensors missing"),
                (foreign, "unknown"),
                (shapes, "of another shape"),
            )
            if names
        ]
        raise WeightsError(f"weights: {path} is not a state dict of {backbone}: {', '.join(counts)}")
