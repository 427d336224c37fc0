"""Predictions over a split, and the numbers they come to."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.fed import Fed
from finetune.memory import in_pieces
from finetune.model import Classifier

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@torch.inference_mode()
def predict(
    model: Classifier,
    fed: Fed,
    device: torch.device,
    autocast: torch.dtype | None,
    on_batch: Callable[[], None] = lambda: None,
    log: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> tuple[Floats, Ints]:
    """Return log-probabilities (N, classes) and labels (N,) of a split, in its order; the model is set to eval mode.

    Args:
        fed: the split's batches in its order: pictures, or what enters a later block.
        autocast: lower precision for the network, or None for float32; the softmax is in float32 in any case.
        on_batch: called after each batch.
        log: called with a line when memory runs out, and batches go through the network in pieces from there on.

    Raises:
        TrainingError: the memory is too small even for one picture.
    """
    model.eval()
    outputs, targets = [], []
    limit: int | None = None

    def again(what: str, sizes: list[int]) -> None:
        log(f"{what}: goes on with {sizes[0]} pictures at a time, which changes no result")

    for inputs, labels in fed.batches:

        def work(sizes: list[int], inputs: Tensor = inputs) -> Tensor:
            parts = []
            for some in torch.split(inputs, sizes):
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    logits = model.suffix(some, fed.start)
                parts.append(torch.log_softmax(logits.float(), dim=1).cpu())
            return torch.cat(parts)

        output, limit = in_pieces(work, len(inputs), limit, 1, device, "in evaluation", again)
        outputs.append(output)
        targets.append(labels.cpu())
        on_batch()
    return torch.cat(outputs).numpy(), torch.cat(targets).numpy()


def accuracy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the share of pictures whose likeliest class is the right one."""
    return float((log_probabilities.argmax(axis=1) == labels).mean())


def cross_entropy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the mean negative log-probability of the right class."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


class ByClass(NamedTuple):
    """How each class fared; float64 (classes,), NaN where a class has no picture.

    By scikit-learn's definitions. Counted here, because its import takes a second, which would be most of the first
    epoch of a run that trains on cached features.

    Attributes:
        recall: share of the class's pictures that were named rightly.
        f1: harmonic mean of recall and precision; 0 where none was named rightly.
    """

    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def by_class(log_probabilities: Floats, labels: Ints) -> ByClass:
    """Return recall and F1 of each class. Every class counts the same in a mean over these, however rare it is."""
    classes = log_probabilities.shape[1]
    predictions = log_probabilities.argmax(axis=1)
    right = np.bincount(labels[predictions == labels], minlength=classes)
    of_it, named = np.bincount(labels, minlength=classes), np.bincount(predictions, minlength=classes)
    occurs = np.where(of_it > 0, of_it, np.nan)
    return ByClass(recall=right / occurs, f1=2 * right / (occurs + named))
