"""Pretrained weights: which ones a config means, whether they fit the backbone, and loading them into it."""

import hashlib
import os
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision
from filelock import BaseFileLock
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from finetune.errors import WeightsError, nearest
from finetune.model import outline_network
from finetune.system.checksums import quarantine, zip_fault
from finetune.system.download import RequiredFile, download, sha256, size_in_words
from finetune.system.environment import cache_folder
from finetune.system.locks import lock
from finetune.system.progress_bar import print_to_stderr, progress_bar

MIRROR_VARIABLE = "FINETUNE_WEIGHTS_URL"  # of a folder that has torchvision's files, in place of its own server


@cache
def identify(backbone: str, weights: str, checked: bool = False) -> str:
    """Return what names the weights' content: a file's SHA-256, or the file name that torchvision publishes.

    Nothing is downloaded or trained. A file is checked against the backbone, unless `checked` says that it was.

    Raises:
        WeightsError: no such weights, or a file that is not of this backbone.
    """
    if weights.lower() == "none":
        return "none"
    if weights == "demo":
        from finetune.demo_weights import DEMO_BACKBONE, DEMO_WEIGHTS_VERSION

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


def prepare(backbone: str, weights: str) -> None:
    """Have the weights on this machine: download them, or pretrain the demo's, once for all runs of a sweep.

    Raises:
        DownloadError, NoRoomError: they can't be fetched.
    """
    if weights.lower() != "none":
        _state_dict(backbone, weights)


def load_weights(network: nn.Module, backbone: str, weights: str, image_px: int) -> None:
    """Load the weights into torchvision's network, except its last layer, which is going to be replaced.

    A vision transformer's position embedding is interpolated to `image_px`.

    Raises:
        WeightsError: they are not of this backbone.
        DownloadError, NoRoomError: they can't be fetched.
    """
    state = _state_dict(backbone, weights)
    if backbone.startswith("vit"):
        patch = int(backbone.rsplit("_", 1)[-1])
        # With reset_heads the classifier's weights are dropped, whatever their number of classes.
        state = dict(interpolate_embeddings(image_px, patch, dict(state), reset_heads=True))
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    network.load_state_dict(state, strict=False)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file that torch.save() wrote; nothing in the file is run.

    Raises:
        WeightsError: the file is no state dict, or damaged as far as that can be told.
    """
    if _is_archive(path) and (fault := zip_fault(path)):
        raise WeightsError(f"weights: {path} is damaged ({fault}). Copy or export it again")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights: {path} can't be read as a state dict ({first_line})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights: {path} holds no state dict (name -> tensor) of a network")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"weights: {path} holds numbers that are not finite, in {name}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_archive(path: Path) -> bool:
    """Return whether torch.save() wrote a ZIP archive; those of before torch 1.6 are none."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it begins to read the archive, and may find damage
        return True


def _state_dict(backbone: str, weights: str) -> dict[str, Tensor]:
    if weights == "demo":
        from finetune.demo_weights import demo_weights_path

        with _one_at_a_time("demo"):
            path = demo_weights_path()
        return read_state_dict(path)
    published = torchvision.models.get_model_weights(backbone)
    if weights not in published.__members__:
        return read_state_dict(Path(weights).expanduser())
    asked = wanted(backbone, weights)
    path = _place(str(published[weights].url))
    digest = _digest(path.name)
    if digest is not None and path.is_file() and not sha256(path).startswith(digest):
        print_to_stderr(f"{path} is damaged: set aside as {quarantine(path).name}; it is fetched anew")
        asked = wanted(backbone, weights)
    if asked is not None:
        print_to_stderr(f"fetching {asked.url} to {path}: {size_in_words(asked.size)}, once")
        with progress_bar(path.name, in_bytes=True) as advance:
            download(asked.url, path, digest=digest, on_progress=advance)
    return read_state_dict(path)


def wanted(backbone: str, weights: str) -> RequiredFile | None:
    """Return what is to be fetched, if these weights are published ones that are not on this machine."""
    published = torchvision.models.get_model_weights(backbone)
    if weights not in published.__members__:
        return None
    entry = published[weights]
    path = _place(str(entry.url))
    if path.is_file():
        return None
    size = float(entry.meta.get("_file_size", 0)) * 1e6
    return RequiredFile(f"weights {backbone} {weights}", _url(str(entry.url)), path, size)


def _url(published: str) -> str:
    """Return where the file is fetched from."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{published.rsplit('/', 1)[-1]}" if mirror else published


def _place(url: str) -> Path:
    """Return where torchvision's own loading would look for the file, too."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _digest(name: str) -> str | None:
    """Return how the file's SHA-256 begins, which its name ends with: resnet18-f37072fd.pth."""
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    return match[1] if match else None


def _one_at_a_time(what: str) -> BaseFileLock:
    """Return a lock, so that of several runs that start at once one fetches the weights and the others wait for it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    return lock(cache_folder() / f"{what}.lock")


def _check_fit(state: dict[str, Tensor], backbone: str, path: Path) -> None:
    """Check names and shapes, all but the last layer's, against the backbone; no memory is taken for it."""
    own = outline_network(backbone, 224).state_dict()
    last = list(own)[-1].rpartition(".")[0]  # the classifier's last layer; any number of classes will do
    free = (f"{last}.", "encoder.pos_embedding", "aux1.", "aux2.", "AuxLogits.")
    needed = {name for name in own if not name.startswith(free) and not name.endswith("num_batches_tracked")}
    missing = sorted(needed - set(state))
    foreign = sorted(name for name in set(state) - set(own) if not name.startswith(free))
    shapes = sorted(name for name in needed & set(state) if state[name].shape != own[name].shape)
    if missing or foreign or shapes:
        counts = [
            f"{len(names)} {what} (such as {names[0]})"
            for names, what in (
                (missing, "tensors missing"),
                (foreign, "unknown"),
                (shapes, "of another shape"),
            )
            if names
        ]
        raise WeightsError(f"weights: {path} is not a state dict of {backbone}: {', '.join(counts)}")
