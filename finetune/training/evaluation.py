"""Predictions over a split, and the numbers they come to."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from finetune.models.classifier import Classifier
from finetune.models.microbatch import run_in_microbatches
from finetune.training.batch_source import BatchStream
from finetune.training.metrics import Floats, Ints

logger = logging.getLogger(__name__)


@torch.inference_mode()
def predict(
    model: Classifier,
    fed: BatchStream,
    device: torch.device,
    autocast: torch.dtype | None,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Floats, Ints]:
    """Return log-probabilities (N, classes) and labels (N,) of a split, in its order; the model is set to eval mode.

    Args:
        fed: the split's batches in its order: pictures, or what enters a later block.
        autocast: lower precision for the network, or None for float32; the softmax is in float32 in any case.
        on_batch: called after each batch.

    Raises:
        TrainingError: the memory is too small even for one picture.
    """
    model.eval()
    outputs, targets = [], []
    limit: int | None = None

    def again(what: str, sizes: list[int]) -> None:
        logger.info(f"{what}: goes on with {sizes[0]} pictures at a time, which changes no result")

    for inputs, labels in fed.batches:

        def work(sizes: list[int], inputs: Tensor = inputs) -> Tensor:
            parts = []
            for some in torch.split(inputs, sizes):
                with torch.autocast(device.type, autocast, enabled=autocast is not None):
                    logits = model.suffix(some, fed.start)
                parts.append(torch.log_softmax(logits.float(), dim=1).cpu())
            return torch.cat(parts)

        output, limit = run_in_microbatches(work, len(inputs), limit, 1, device, "in evaluation", again)
        outputs.append(output)
        targets.append(labels.cpu())
        on_batch()
    return torch.cat(outputs).numpy(), torch.cat(targets).numpy()
