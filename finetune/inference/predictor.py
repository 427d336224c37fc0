"""A trained network ready for use: with its preprocessing, class names, and the temperature of its confidences."""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.data.image_io import read_image
from finetune.data.transforms import Preprocessing, eval_transform, normalise, resize_for_cache, stack
from finetune.errors import DataError
from finetune.models.classifier import Classifier
from finetune.run.checkpoint import load_checkpoint, model_from_checkpoint
from finetune.rundir import keys
from finetune.system import documents

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
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


def load_trained(checkpoint: Path, device: str | None = None) -> TrainedModel:
    """Return the network of a checkpoint, calibrated where the run's summary lies beside it.

    Args:
        device: None for a GPU where there is one.

    Raises:
        UserError: the checkpoint can't be used.
    """
    content = load_checkpoint(checkpoint)
    model, to, classes = model_from_checkpoint(content)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = model.eval().to(place).to(memory_format=torch.channels_last)
    temperature, fault = _temperature(checkpoint.parent / keys.SUMMARY, len(content["history"]))
    if fault:
        logger.info(f"confidences are not calibrated (temperature 1): {fault}")
    name, config = str(content["run_id"]), dict(content["config"])
    return TrainedModel(model, to, classes, temperature, not fault, name, config, place)


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


BATCH_SIZE = 64


DECODE_AHEAD = 2 * BATCH_SIZE  # pictures that are decoded before they are asked for


MAX_THREADS = 8


class Prediction(NamedTuple):
    """What the network says of a picture.

    Attributes:
        ranked: (class name, probability), the likeliest first.
    """

    path: Path
    ranked: list[tuple[str, float]]


def predict_files(
    trained: TrainedModel, paths: Iterable[Path], top: int, unreadable: list[str]
) -> Iterator[Prediction]:
    """Yield the answers on the pictures that can be read, in order; add a line for each other one to `unreadable`.

    Args:
        top: classes that are told of each picture, at most all.
    """
    threads = min(MAX_THREADS, torch.get_num_threads())
    with closing(decode_ahead(paths, trained.to, threads)) as found:
        while group := list(islice(found, BATCH_SIZE)):
            unreadable += [str(square) for _, square in group if isinstance(square, DataError)]
            read = [(path, square) for path, square in group if isinstance(square, Tensor)]
            if not read:
                continue
            probabilities, order = trained.probabilities(stack([square for _, square in read])).topk(top)
            for (path, _), row, labels in zip(read, probabilities.tolist(), order.tolist(), strict=True):
                yield Prediction(path, [(trained.classes[label], p) for label, p in zip(labels, row, strict=True)])


def decode_ahead(paths: Iterable[Path], to: Preprocessing, threads: int) -> Generator[tuple[Path, Tensor | DataError]]:
    """Yield each picture as evaluation sees it, (3, side, side) uint8, or why it can't be read; in order."""
    rest = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[tuple[Path, Future[Tensor | DataError]]] = deque()
        try:
            for path in islice(rest, DECODE_AHEAD):
                under_way.append((path, pool.submit(_decode_square, path, to)))
            while under_way:
                path, square = under_way.popleft()
                yield path, square.result()
                for following in islice(rest, 1):
                    under_way.append((following, pool.submit(_decode_square, following, to)))
        finally:
            for _, square in under_way:
                square.cancel()


def _decode_square(path: Path, to: Preprocessing) -> Tensor | DataError:
    try:
        return eval_transform(to)(resize_for_cache(read_image(path), to))
    except DataError as error:
        return error
