"""Log-probabilities of a split."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from finetune.models.classifier import Classifier
from finetune.models.microbatch import MicrobatchLimits, run_in_microbatches
from finetune.training.batch_source import BatchStream
from finetune.training.loss import compute_logits
from finetune.training.metrics import Floats, Ints

logger = logging.getLogger(__name__)


@torch.inference_mode()
def predict(
    model: Classifier,
    stream: BatchStream,
    device: torch.device,
    autocast: torch.dtype | None,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[Floats, Ints]:
    """Return log-probabilities (N, classes) and labels (N,) of a split, in its order; sets the model to eval mode.

    The frozen blocks run in float32, as they do when the activation cache is filled and in training: so the cache
    changes no number by more than its rounding to float16.

    Args:
        autocast: lower precision of the blocks from `stream.cut` on, None for float32.
        on_batch: called after each batch.

    Raises:
        TrainingError: out of memory even with one image at a time.
    """
    model.eval()
    outputs, targets = [], []
    limit: int | None = None

    def on_smaller(reason: str, sizes: list[int]) -> None:
        logger.info(f"{reason}: continues with {sizes[0]} images at a time, which changes no result")

    for inputs, labels in stream.batches:

        def work(sizes: list[int], inputs: Tensor = inputs) -> Tensor:
            scores = []
            for piece in torch.split(inputs, sizes):
                hidden = piece if stream.start == stream.cut else model.prefix(piece, stream.cut)
                logits = compute_logits(model, hidden, stream.cut, autocast)
                scores.append(torch.log_softmax(logits, dim=1).cpu())
            return torch.cat(scores)

        output, limit = run_in_microbatches(
            work, len(inputs), MicrobatchLimits(limit), device, "in evaluation", on_smaller
        )
        outputs.append(output)
        targets.append(labels.cpu())
        on_batch()
    return torch.cat(outputs).numpy(), torch.cat(targets).numpy()
