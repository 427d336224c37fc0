"""Files of tensors: written with a checksum; read as torch, timm, Lightning and runs write them, running no code."""

import argparse
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.errors import WeightsError
from finetune.system.checksums import add_zip_checksum, zip_fault

logger = logging.getLogger(__name__)

# Entries that hold a network's weights, in files that hold more; the first that is there is taken.
WEIGHTS_ENTRIES = (
    *("state_dict", "model_state_dict", "model", "network", "net", "weights", "module", "backbone"),
    *("model_ema", "state_dict_ema", "ema_state_dict", "ema", "teacher", "student"),
)
MAX_DEPTH = 3  # of entries inside entries
MAX_NAMED = 8  # entries that a message names


class WeightsFile(NamedTuple):
    """The content of a file of weights.

    Attributes:
        state: name -> tensor, as in the file.
        backbone: of the run, if the file is a checkpoint of this project, whose names are those of a `Classifier`.
    """

    state: dict[str, Tensor]
    backbone: str | None = None


def save_torch_file(content: Any, path: Path) -> None:
    """Write `content` with torch.save(), and a checksum of the file.

    Raises:
        OSError: the file can't be written.
    """
    try:
        with path.open("wb") as file:  # given a path, torch does not report why it failed
            torch.save(content, file)
    except RuntimeError as error:  # torch closes a file that could not be written
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    add_zip_checksum(path)


def read_weights(path: Path) -> WeightsFile:
    """Return the tensors in a file of torch.save() or safetensors.

    Raises:
        WeightsError: it holds no weights, several networks, numbers that are not finite, or is known to be damaged.
    """
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    backbone = None
    if isinstance(content, dict) and content.get("format") == 1 and isinstance(content.get("run_id"), str):
        config = content.get("config")
        backbone = str(config.get("backbone")) if isinstance(config, dict) else None
        content = content.get("model")
    state = _unwrap(content, path)
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"weights: {path} holds numbers that are not finite, in {name}")
    return WeightsFile(state, backbone)


def strip_prefix(state: dict[str, Tensor], own: Iterable[str], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a network whose names all begin with a prefix, such as `module.`, without the prefix.

    The prefix is the one under which most of the network's `own` names lie; with none, the state is returned as it is.
    """
    names = list(own)
    marks = [name for name in names if "." in name][:MAX_NAMED] or names[:1]
    prefixes = {""} | {key.removesuffix(mark) for key in state for mark in marks if key.endswith(f".{mark}")}
    fits = {prefix: sum(prefix + name in state for name in names) for prefix in prefixes}
    prefix = max(sorted(fits, key=len), key=lambda name: fits[name])
    if not prefix:
        return state
    taken = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    others = len(state) - len(taken)
    logger.info(
        f"weights: {path}: took the {len(taken)} tensors under {prefix!r}" + (f", not {others} others" * (others > 0))
    )
    return taken


def _read_torch(path: Path) -> Any:
    if _is_zip(path) and (fault := zip_fault(path)):
        raise WeightsError(f"weights: {path} is damaged ({fault}). Copy or export it again")
    try:
        # Training scripts, torchvision's among them, store their arguments beside the weights: plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"weights: {path} can't be read as a state dict ({first_line}). A file that stores objects beside the "
            "weights can be saved without them: torch.save(network.state_dict(), path)"
        ) from error


def _is_safetensors(path: Path) -> bool:
    """Return whether the file begins as safetensors do: the length of a JSON header (8 bytes), and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length < path.stat().st_size


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise WeightsError(
            f"weights: {path} is a file of safetensors, a package that can't be imported ({error}): install it with "
            "`make setup`, or give a file of torch.save()"
        ) from error
    try:
        return load_file(path)
    except Exception as error:  # of the library's own kind, or of torch's
        raise WeightsError(f"weights: {path} is damaged ({error}). Copy or download it again") from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights in the content of a file, and log which of its entries they are."""
    trail: list[str] = []
    while not _is_state(content):
        entries = {name: value for name, value in _items(content) if _holds_state(value)}
        choice = next((name for name in (*WEIGHTS_ENTRIES, *entries) if name in entries), None)
        if choice is None or (choice not in WEIGHTS_ENTRIES and len(entries) > 1):
            found = [repr(name) for name, _ in _items(content)]
            listed = ", ".join(found[:MAX_NAMED]) + (" and more" if len(found) > MAX_NAMED else "")
            kind = f"its entries are {listed}" if found else f"it holds a {type(content).__name__}"
            raise WeightsError(f"weights: {path} holds no state dict (name -> tensor) of a network: {kind}")
        trail.append(choice)
        content = entries[choice]
    if trail:
        logger.info(f"weights: {path}: took the entry {' / '.join(map(repr, trail))}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _holds_state(content: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether this is a state dict, or holds one at most `depth` entries deep."""
    return _is_state(content) or (
        depth > 0 and any(_holds_state(value, depth - 1) for _, value in _items(content) if isinstance(value, Mapping))
    )


def _items(content: Any) -> list[tuple[str, Any]]:
    return (
        [(name, value) for name, value in content.items() if isinstance(name, str)] if isinstance(content, dict) else []
    )


def _is_state(content: Any) -> bool:
    """Return whether this is a state dict: names to tensors. A few plain numbers may be among them."""
    if not isinstance(content, Mapping) or not content:
        return False
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    others = [value for value in content.values() if not isinstance(value, Tensor)]
    return tensors > len(others) and not any(isinstance(value, Mapping) for value in others)


def _is_zip(path: Path) -> bool:
    """Return whether the file is a ZIP archive; files from before torch 1.6 are not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # is_zipfile reads some of the archive, and can find damage
        return True
