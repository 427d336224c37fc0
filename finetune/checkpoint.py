"""The checkpoint files of a run: self-contained, of plain values and tensors, so that loading one runs no code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from finetune.data.transforms import Preprocessing
from finetune.errors import UserError
from finetune.model import Classifier, build_classifier, build_network
from finetune.record import replacing
from finetune.writing import explained

FORMAT = 1


def save_checkpoint(
    path: Path,
    model: Classifier,
    optimizer: torch.optim.Optimizer | None,
    history: list[dict[str, Any]],
    about: dict[str, Any],
    **more: Any,
) -> None:
    """Write a checkpoint, wholly or not at all.

    Args:
        optimizer: None where training will not go on from here.
        history: rows of the epochs trained so far. Random streams are functions of seed and epoch (see `train`), so
            between epochs the number of rows is also the state of the streams.
        about: what `describe` returns.
        more: what else a resume needs: plain values and tensors.

    Raises:
        WriteError: it can't be written.
    """
    content = {"format": FORMAT, "model": model.state_dict(), "history": history, **about, **more}
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    with explained(path, _size(content)), replacing(path) as temporary:
        try:
            with temporary.open("wb") as file:  # given a path, torch's own writer would not say why it failed
                torch.save(content, file)
        except RuntimeError as error:  # torch's, at closing a file that could not be written
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _size(content: Any) -> int:
    """Return the bytes of the tensors in nested dictionaries and lists."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return sum(map(_size, parts))


def describe(run_id: str, config: dict[str, Any], classes: tuple[str, ...], to: Preprocessing) -> dict[str, Any]:
    """Return what a checkpoint says of itself: enough to rebuild the network and its preprocessing."""
    return {"run_id": run_id, "config": config, "classes": list(classes), "preprocessing": asdict(to)}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint file.

    Raises:
        UserError: it is missing, damaged, or no checkpoint of this project.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise UserError(f"{path}: can't be read as a checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: is no checkpoint of this project (format {FORMAT})")
    return content


def rebuild(content: dict[str, Any]) -> tuple[Classifier, Preprocessing, list[str]]:
    """Return the network with its weights, its preprocessing and its class names."""
    to = Preprocessing(**content["preprocessing"])
    config, classes = content["config"], content["classes"]
    model = build_classifier(build_network(config["backbone"], to.crop_px), len(classes), config["dropout"])
    model.load_state_dict(content["model"])
    return model, to, classes
