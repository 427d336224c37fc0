"""Checkpoint files: self-contained, made of plain values and tensors, so that loading one runs no code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finetune.config import is_backbone
from finetune.errors import CorruptFileError, UserError
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.weights_file import save_torch_file
from finetune.pretrained import Preprocessing
from finetune.rundir.failures import is_out_of_memory
from finetune.system.atomic import check_write_guard, raising_write_error, replacing
from finetune.system.checksums import zip_fault

FORMAT = 1


def save_checkpoint(
    path: Path,
    model: Classifier,
    optimizer: torch.optim.Optimizer | None,
    history: list[dict[str, Any]],
    fields: dict[str, Any],
    previous: Path | None = None,
) -> None:
    """Write a checkpoint atomically, with a checksum of all its bytes.

    Args:
        optimizer: None if training will not continue from here.
        history: metrics of the epochs trained so far. Random streams are functions of seed and epoch (see
            training/loop.py), so between epochs the number of rows is also the state of the streams.
        fields: what `checkpoint_metadata` returns, and what else a resume needs: plain values and tensors.
        previous: new name of the checkpoint now at `path`; None to replace it.

    Raises:
        WriteError: it can't be written.
    """
    content = {"format": FORMAT, "model": model.state_dict(), "history": history, **fields}
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    with raising_write_error(path, _tensor_bytes(content)), replacing(path) as temporary:
        save_torch_file(content, temporary)
        if previous is not None and path.exists():
            check_write_guard(path)
            path.replace(previous)


def _tensor_bytes(content: Any) -> int:
    """Return the bytes of the tensors in nested dictionaries and lists."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return sum(map(_tensor_bytes, values))


def checkpoint_metadata(
    run_id: str, config: dict[str, Any], classes: tuple[str, ...], preprocessing: Preprocessing
) -> dict[str, Any]:
    """Return the fields from which network and preprocessing can be rebuilt."""
    return {"run_id": run_id, "config": config, "classes": list(classes), "preprocessing": asdict(preprocessing)}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint file.

    Verifies its checksum first: torch.load() does not notice most flipped bits. Files of earlier versions have no
    checksum of their own; they are verified by those of the ZIP archive's members.

    Raises:
        CorruptFileError: its bytes have changed since it was written, or it is no checkpoint of this project.
        UserError: it is missing, or can't be read at the moment and may be intact.
    """
    try:
        fault = zip_fault(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error
    if fault is not None:
        raise CorruptFileError(f"{path}: can't be read as a checkpoint ({fault})")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign file
        reason = _first_line(error)
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise UserError(f"{path}: can't be read ({reason})") from error
        raise CorruptFileError(f"{path}: can't be read as a checkpoint ({reason})") from error
    if not _is_ours(content):
        raise CorruptFileError(f"{path}: is no checkpoint of this project (format {FORMAT})")
    return content  # type: ignore[no-any-return]


def _is_ours(content: Any) -> bool:
    """Return whether the content has what `save_checkpoint` writes into every file."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    history = content.get("history")
    rows_are_rows = isinstance(history, list) and all(isinstance(row, dict) for row in history)
    return rows_are_rows and isinstance(content.get("run_id"), str) and isinstance(content.get("model"), dict)


def model_from_checkpoint(content: dict[str, Any]) -> tuple[Classifier, Preprocessing, list[str]]:
    """Return the network with its weights, its preprocessing and its class names.

    Raises:
        UserError: the content is not that of a run's checkpoint.
    """
    try:
        preprocessing = Preprocessing(**content["preprocessing"])
        config, classes = content["config"], [str(name) for name in content["classes"]]
        if not is_backbone(config["backbone"]) or not 16 <= preprocessing.crop_px <= 2048:
            raise ValueError("unknown network or image size")
        network = build_network(config["backbone"], preprocessing.crop_px)
        model = build_classifier(network, len(classes), config["dropout"])
        model.load_state_dict(content["model"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"the checkpoint's content does not fit its network ({_first_line(error)})") from error
    return model, preprocessing, classes


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]  # an empty file's error has no text
