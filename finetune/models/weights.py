"""Pretrained weights: which file a config means, fetching it, and loading it into a network."""

import contextlib
import hashlib
import logging
import os
import re
from functools import cache
from pathlib import Path

import torch
from torch import nn

from finetune.errors import DownloadError, WeightsError
from finetune.models.weights_file import read_weights
from finetune.models.weights_loading import check_fit, load_into
from finetune.pretrained import HUB, PublishedWeights, preprocessing_of, published_weights, unknown_weights_message
from finetune.system import locks
from finetune.system.atomic import write_atomic
from finetune.system.checksums import quarantine
from finetune.system.download import RequiredFile, fetch, sha256
from finetune.system.environment import cache_folder

logger = logging.getLogger(__name__)

MIRROR_VARIABLE = "FINETUNE_WEIGHTS_URL"  # of a folder that has the published files, in place of their own servers
YES = ("1", "on", "yes", "true")  # values of HF_HUB_OFFLINE


@cache
def weights_hash(backbone: str, weights: str, checked: bool = False, image_px: int | None = None) -> str:
    """Return an identifier of the weights' content: a file's SHA-256, or the name under which they are published.

    Downloads and trains nothing. Checks a file against the backbone, unless it was `checked` before.

    Raises:
        WeightsError: no such weights, or a file that is not of this backbone.
        ConfigError: timm has no such architecture.
    """
    if weights.lower() == "none":
        return "none"
    if weights == "demo":
        from finetune.models.demo_weights import DEMO_BACKBONE, DEMO_WEIGHTS_VERSION

        if backbone != DEMO_BACKBONE:
            raise WeightsError(f"weights: demo are for backbone {DEMO_BACKBONE}, not {backbone}")
        return str(DEMO_WEIGHTS_VERSION)
    published = published_weights(backbone)
    if weights in published:
        return published[weights].identifier
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(unknown_weights_message(backbone, weights))
    if not checked:
        side = preprocessing_of(backbone, weights, None).crop_px if image_px is None else image_px
        check_fit(backbone, weights, read_weights(path), path, side)
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
    """Load the weights into a network of `build_network`, except its last layer, which is going to be replaced.

    A vision transformer's position embedding is interpolated to `image_px`.

    Raises:
        WeightsError: they are not of this backbone.
        DownloadError, DiskFullError: they can't be fetched.
    """
    path = _weights_file(backbone, weights)
    load_into(network, backbone, weights, read_weights(path), path, image_px)


def _weights_file(backbone: str, weights: str) -> Path:
    """Return the file of these weights, after downloading it or pretraining the demo's if needed."""
    if weights == "demo":
        from finetune.models.demo_weights import demo_weights_path

        cache_folder().mkdir(parents=True, exist_ok=True)
        with locks.hold(cache_folder() / "demo.lock"):  # of several runs that start at once, one pretrains
            return demo_weights_path()
    published = published_weights(backbone).get(weights)
    if published is None:
        return Path(weights).expanduser()
    path = _local_file(published)
    digest = _digest_in_name(path.name)
    expected = digest or _noted_digest(path)
    if expected is not None and path.is_file() and not sha256(path).startswith(expected):
        logger.info(f"{path} is damaged: renamed to {quarantine(path).name}; fetched again")
    if not path.is_file():
        _check_online(published)
        fetch(_required(backbone, weights, published), digest)
        if digest is None:
            write_atomic(_digest_file(path), sha256(path))
    return path


def required_weights(backbone: str, weights: str) -> RequiredFile | None:
    """Return the file to download if these weights are published and not on this machine, else None."""
    published = published_weights(backbone).get(weights)
    if published is None or _local_file(published).is_file():
        return None
    return _required(backbone, weights, published)


def _required(backbone: str, weights: str, published: PublishedWeights) -> RequiredFile:
    return RequiredFile(f"weights {backbone} {weights}", _url(published), _cache_file(published), published.size)


def _check_online(published: PublishedWeights) -> None:
    """Raise DownloadError if the user forbids downloads from the hub."""
    if published.hub and not os.environ.get(MIRROR_VARIABLE) and os.environ.get("HF_HUB_OFFLINE", "").lower() in YES:
        raise DownloadError(f"{_url(published)} may not be downloaded: HF_HUB_OFFLINE is set")


def _url(published: PublishedWeights) -> str:
    """Return the address to download from: a mirror's, if one is set."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        return f"{mirror.rstrip('/')}/{published.file_name}"
    if published.hub is None:
        assert published.url is not None, "published on the hub, or at an address"
        return published.url
    repository, name = published.hub
    return f"{os.environ.get('HF_ENDPOINT', HUB).rstrip('/')}/{repository}/resolve/main/{name}"


def _local_file(published: PublishedWeights) -> Path:
    """Return the file in our cache, or that in the user's cache of the Hugging Face hub if it is only there."""
    own = _cache_file(published)
    if published.hub is None or own.is_file():
        return own
    from huggingface_hub import try_to_load_from_cache  # comes with timm

    found = try_to_load_from_cache(*published.hub)
    return Path(found) if isinstance(found, str) else own


def _cache_file(published: PublishedWeights) -> Path:
    """Return the path that torchvision's own loading uses, too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / published.file_name


def _digest_in_name(name: str) -> str | None:
    """Return the first digits of the SHA-256, which many published names end with: resnet18-f37072fd.pth."""
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    return match[1] if match else None


def _noted_digest(path: Path) -> str | None:
    """Return the SHA-256 that the file had when it was downloaded, or None."""
    with contextlib.suppress(OSError, ValueError):
        noted = _digest_file(path).read_text(encoding="ascii").strip()
        return noted if re.fullmatch(r"[0-9a-f]{64}", noted) else None
    return None


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
