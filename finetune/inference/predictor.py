"""A trained network with its preprocessing, class names and temperature, and its predictions on image files."""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.data.images.image_io import map_ahead, read_image
from finetune.data.transforms import eval_transform, normalise, resize_for_cache, stack
from finetune.errors import DataError
from finetune.models.classifier import Classifier
from finetune.models.device import device_of
from finetune.pretrained import Preprocessing
from finetune.run.checkpoint import load_checkpoint, model_from_checkpoint
from finetune.rundir import keys
from finetune.system import documents

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
DECODE_AHEAD = 2 * BATCH_SIZE  # images decoded before they are needed
MAX_THREADS = 8


@dataclass(frozen=True)
class TrainedModel:
    """The network of a checkpoint, ready for use.

    Attributes:
        model: in eval mode, on `device`.
        classes: in the order of the logits.
        temperature: divides the logits for calibrated confidences.
        calibrated: whether the temperature was fitted on val; else it is 1.
    """

    model: Classifier
    preprocessing: Preprocessing
    classes: list[str]
    temperature: float
    calibrated: bool
    run_id: str
    config: dict[str, Any]
    device: torch.device

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (B, classes) float32, on the CPU, for images (B, 3, H, W) uint8."""
        with torch.inference_mode():
            logits = self.model(normalise(images.to(self.device), self.preprocessing)).float()
            result: Tensor = (logits / self.temperature).softmax(dim=1).cpu()
            return result


class Prediction(NamedTuple):
    """The prediction on one image.

    Attributes:
        ranked: (class name, probability), the likeliest first.
    """

    path: Path
    ranked: list[tuple[str, float]]


def load_trained(checkpoint: Path, device: str = "auto") -> TrainedModel:
    """Return the network of a checkpoint, calibrated if the run's summary lies beside it.

    Args:
        device: see `device_of`.

    Raises:
        UserError: the checkpoint can't be used.
    """
    content = load_checkpoint(checkpoint)
    model, preprocessing, classes = model_from_checkpoint(content)
    chosen = device_of(device)
    temperature, fault = _read_temperature(checkpoint.parent / keys.SUMMARY, len(content["history"]))
    if fault:
        logger.info(f"confidences are not calibrated (temperature 1): {fault}")
    return TrainedModel(
        model=model.eval().to(chosen).to(memory_format=torch.channels_last),
        preprocessing=preprocessing,
        classes=classes,
        temperature=temperature,
        calibrated=not fault,
        run_id=str(content["run_id"]),
        config=dict(content["config"]),
        device=chosen,
    )


def _read_temperature(path: Path, epochs: int) -> tuple[float, str]:
    """Return the temperature fitted for the network after `epochs` epochs and "", or 1 and why there is none."""
    try:
        summary = documents.read_json(path)
    except (OSError, ValueError, TypeError) as error:
        return 1.0, f"{path} can't be read ({error})"
    if summary is None:
        return 1.0, f"{path} does not exist; a run writes it at its end"
    temperature = summary.get("temperature")
    if not isinstance(temperature, int | float) or not temperature > 0:
        return 1.0, f"{path} has none"
    if summary.get("best/epoch") != epochs:
        return 1.0, f"{path} is of epoch {summary.get('best/epoch')}, the checkpoint of epoch {epochs}"
    return float(temperature), ""


def predict_files(
    trained: TrainedModel, paths: Iterable[Path], top: int, unreadable: list[str]
) -> Iterator[Prediction]:
    """Yield the predictions on the readable images, in order; add a line for each other image to `unreadable`.

    Args:
        top: number of classes in each prediction, at most all.
    """
    threads = min(MAX_THREADS, torch.get_num_threads())
    with closing(decode_ahead(paths, trained.preprocessing, threads)) as decoded:
        while batch := list(islice(decoded, BATCH_SIZE)):
            unreadable += [str(error) for _, error in batch if isinstance(error, DataError)]
            images = [(path, image) for path, image in batch if isinstance(image, Tensor)]
            if not images:
                continue
            probabilities, order = trained.probabilities(stack([image for _, image in images])).topk(top)
            for (path, _), row, labels in zip(images, probabilities.tolist(), order.tolist(), strict=True):
                yield Prediction(path, [(trained.classes[label], p) for label, p in zip(labels, row, strict=True)])


def decode_ahead(
    paths: Iterable[Path], preprocessing: Preprocessing, threads: int
) -> Generator[tuple[Path, Tensor | DataError]]:
    """Yield each image as evaluation sees it, (3, side, side) uint8, or why it can't be read; in order."""

    def decode(path: Path) -> tuple[Path, Tensor | DataError]:
        try:
            return path, eval_transform(preprocessing)(resize_for_cache(read_image(path), preprocessing))
        except DataError as error:
            return path, error

    return map_ahead(decode, paths, threads, DECODE_AHEAD)
