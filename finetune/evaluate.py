"""Predictions over a split, and the numbers they come to."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.data.loading import Loader

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@torch.inference_mode()
def predict(
    model: nn.Module,
    loader: Loader,
    device: torch.device,
    autocast: torch.dtype | None,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Floats, Ints]:
    """Return log-probabilities (N, classes) and labels (N,) of a split, in its order; the model is set to eval mode.

    Args:
        autocast: lower precision for the network, or None for float32; the softmax is in float32 in any case.
        on_batch: called after each batch.
    """
    model.eval()
    outputs, targets = [], []
    for images, labels in loader:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            logits = model(images.to(device, memory_format=torch.channels_last, non_blocking=True))
        outputs.append(torch.log_softmax(logits.float(), dim=1).cpu())
        targets.append(labels)
        on_batch()
    return torch.cat(outputs).numpy(), torch.cat(targets).numpy()


def accuracy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the share of pictures whose likeliest class is the right one."""
    return float((log_probabilities.argmax(axis=1) == labels).mean())


def cross_entropy(log_probabilities: Floats, labels: Ints) -> float:
    """Return the mean negative log-probability of the right class."""
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def macro_f1(log_probabilities: Floats, labels: Ints) -> float:
    """Return the mean F1 over the classes that occur in `labels`, each counting the same however rare it is."""
    from sklearn.metrics import f1_score  # slow to import, and needed once a run

    predictions = log_probabilities.argmax(axis=1)
    return float(f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0))
