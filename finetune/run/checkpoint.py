"""The checkpoint files of a run: self-contained, of plain values and tensors, so that loading one runs no code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finetune.config import BACKBONES
from finetune.data.transforms import Preprocessing
from finetune.errors import CorruptFileError, UserError
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.torch_files import save_torch_file
from finetune.rundir.failures import is_out_of_memory
from finetune.system.atomic import check_write_guard, raising_write_error, replacing
from finetune.system.checksums import zip_fault

FORMAT = 1


def save_checkpoint(
    path: Path,
    model: Classifier,
    optimizer: torch.optim.Optimizer | None,
    history: list[dict[str, Any]],
    about: dict[str, Any],
    previous: Path | None = None,
    **more: Any,
) -> None:
    """Write a checkpoint with a checksum of all its bytes, wholly or not at all.

    Args:
        optimizer: None where training will not go on from here.
        history: rows of the epochs trained so far. Random streams are functions of seed and epoch (see `train`), so
            between epochs the number of rows is also the state of the streams.
        about: what `describe` returns.
        previous: what the checkpoint that was at `path` is called from now on; None where it is of no more use.
        more: what else a resume needs: plain values and tensors.

    Raises:
        WriteError: it can't be written.
    """
    content = {"format": FORMAT, "model": model.state_dict(), "history": history, **about, **more}
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
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return sum(map(_tensor_bytes, parts))


def checkpoint_metadata(
    run_id: str, config: dict[str, Any], classes: tuple[str, ...], to: Preprocessing
) -> dict[str, Any]:
    """Return what a checkpoint says of itself: enough to rebuild the network and its preprocessing."""
    return {"run_id": run_id, "config": config, "classes": list(classes), "preprocessing": asdict(to)}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint file.

    Its checksum is compared first: of most flipped bits torch.load() notices nothing. A file of an earlier version has
    none of its own, and is checked by those of the parts of the archive that it is.

    Raises:
        DamagedError: not all of its bytes are as they were written, or it is no checkpoint of this project.
        UserError: it is missing, or can't be read now; it may be whole, and nothing is to be done to it.
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
        why = (str(error) or type(error).__name__).splitlines()[0]  # of an empty file the error has no words
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise UserError(f"{path}: can't be read ({why})") from error
        raise CorruptFileError(f"{path}: can't be read as a checkpoint ({why})") from error
    if not _is_ours(content):
        raise CorruptFileError(f"{path}: is no checkpoint of this project (format {FORMAT})")
    return content  # type: ignore[no-any-return]


def _is_ours(content: Any) -> bool:
    """Whether a file holds what `save_checkpoint` puts into every one."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    history = content.get("history")
    rows_are_rows = isinstance(history, list) and all(isinstance(row, dict) for row in history)
    return rows_are_rows and isinstance(content.get("run_id"), str) and isinstance(content.get("model"), dict)


def model_from_checkpoint(content: dict[str, Any]) -> tuple[Classifier, Preprocessing, list[str]]:
    """Return the network with its weights, its preprocessing and its class names.

    Raises:
        UserError: the content is not what a run has saved.
    """
    try:
        to = Preprocessing(**content["preprocessing"])
        config, classes = content["config"], [str(name) for name in content["classes"]]
        if config["backbone"] not in BACKBONES or not 16 <= to.crop_px <= 2048:
            raise ValueError("of no network that is known here")
        model = build_classifier(build_network(config["backbone"], to.crop_px), len(classes), config["dropout"])
        model.load_state_dict(content["model"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"the checkpoint holds something else than it should ({why})") from error
    return model, to, classes
