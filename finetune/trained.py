"""A trained network ready for use: with its preprocessing, class names, and the temperature of its confidences."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.checkpoint import load_checkpoint, rebuild
from finetune.data.transforms import Preprocessing, normalise
from finetune.model import Classifier
from finetune.rundir import keys
from finetune.system import documents
from finetune.system.progress_bar import print_to_stderr


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds, and what the run found out about it.

    Attributes:
        model: in eval mode, on `device`.
        classes: in the order of the logits.
        temperature: what logits are divided by for confidences that can be believed.
        calibrated: whether that was fitted on val; else it is 1.
    """

    model: Classifier
    to: Preprocessing
    classes: list[str]
    temperature: float
    calibrated: bool
    run_id: str
    config: dict[str, Any]
    device: torch.device

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities (B, classes) float32, on the CPU, for images (B, 3, H, W) uint8."""
        with torch.inference_mode():
            logits = self.model(normalise(images.to(self.device), self.to)).float()
            result: Tensor = (logits / self.temperature).softmax(dim=1).cpu()
            return result


def load(checkpoint: Path, device: str | None = None, say: Callable[[str], None] = print_to_stderr) -> Trained:
    """Return the network of a checkpoint, calibrated where the run's summary lies beside it.

    Args:
        device: None for a GPU where there is one.
        say: is told where confidences are not calibrated.

    Raises:
        UserError: the checkpoint can't be used.
    """
    content = load_checkpoint(checkpoint)
    model, to, classes = rebuild(content)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = model.eval().to(place).to(memory_format=torch.channels_last)
    temperature, fault = _temperature(checkpoint.parent / keys.SUMMARY, len(content["history"]))
    if fault:
        say(f"confidences are not calibrated (temperature 1): {fault}")
    name, config = str(content["run_id"]), dict(content["config"])
    return Trained(model, to, classes, temperature, not fault, name, config, place)


def _temperature(summary: Path, epochs: int) -> tuple[float, str]:
    """Return the temperature that was fitted for the network after so many epochs, or 1 and why there is none."""
    try:
        told = documents.read_json(summary)
    except (OSError, ValueError, TypeError) as error:
        return 1.0, f"{summary} can't be read ({error})"
    if told is None:
        return 1.0, f"there is no {summary}; a run writes it at its end"
    found = told.get("temperature")
    if not isinstance(found, int | float) or not found > 0:
        return 1.0, f"{summary} has none"
    if told.get("best/epoch") != epochs:
        return 1.0, f"{summary} is of the network after epoch {told.get('best/epoch')}, and this is after {epochs}"
    return float(found), ""
