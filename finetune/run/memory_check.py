"""Tries the largest stage of a run before its first epoch: does it fit into memory, and in which micro-batches?

Otherwise, memory could run out hours after the start, when more blocks begin to train. One forward and backward pass
on a batch of noise; the run itself stays the same, bit for bit.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch

from finetune.models.microbatch import MicrobatchLimits, min_batch_size, run_in_microbatches
from finetune.models.unfreezing import freeze_blocks
from finetune.run.build import RunComponents
from finetune.training.loss import batch_loss, compute_logits
from finetune.training.metering import peak_memory_mb
from finetune.training.state import rng_states, set_rng_states

logger = logging.getLogger(__name__)


class UnfreezeStage(NamedTuple):
    """A part of a run in which the same blocks train on images of the same size."""

    epoch: int  # number of finished epochs when it begins
    cut: int  # number of frozen blocks
    side: int  # of the training images, in pixels


def largest_stage(components: RunComponents) -> UnfreezeStage:
    """Return the last stage: neither the trainable share nor the images' size ever shrink."""

    def at(epoch: int) -> tuple[int, int]:
        return components.settings.schedule.cut(epoch), components.train_px(epoch)

    epochs = components.config.epochs
    last = at(epochs - 1)
    return UnfreezeStage(next(epoch for epoch in range(epochs) if at(epoch) == last), *last)


def check_largest_stage_fits(components: RunComponents, epochs_done: int) -> tuple[int, int | None]:
    """Return (first epoch of the largest stage, maximum number of images in one pass; None for complete batches).

    Args:
        epochs_done: number of finished epochs. A stage that has begun is not tried: its first step shows if it fits.

    Raises:
        TrainingError: out of memory even with the smallest micro-batches.
    """
    stage = largest_stage(components)
    if stage.epoch <= epochs_done:
        return stage.epoch, None
    model, device = components.model, components.settings.device
    count = min(components.config.batch_size, len(components.splits.train))
    share = components.settings.schedule.share(stage.epoch)
    context = f"at epoch {stage.epoch + 1}, where {share:.0%} of the backbone trains (tried before the first)"
    with _restoring(components, epochs_done):
        freeze_blocks(model, stage.cut)
        _, limit = run_in_microbatches(
            lambda sizes: _try_step(components, stage, sizes),
            count,
            MicrobatchLimits(None, min_batch_size(model)),
            device,
            context,
            lambda reason, _: logger.info(f"memory: {reason}"),
        )
        micro_batches = "" if limit is None else f", in micro-batches of {limit}"
        logger.info(
            f"memory: the largest stage, from epoch {stage.epoch + 1} on, needs {peak_memory_mb(device)} MB"
            f"{micro_batches}"
        )
        return stage.epoch, limit


def _try_step(components: RunComponents, stage: UnfreezeStage, sizes: list[int]) -> None:
    """Compute gradients on noise, beside the memory that AdamW will need."""
    model, settings = components.model, components.settings
    model.zero_grad(set_to_none=True)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    without_state = [parameter for parameter in trainable if not components.optimizer.state.get(parameter)]
    moments = [torch.zeros_like(parameter) for parameter in without_state for _ in range(2)]  # AdamW keeps two
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        images = torch.randn(size, 3, stage.side, stage.side, generator=generator)
        images = images.to(settings.device).to(memory_format=torch.channels_last)
        with torch.no_grad():
            hidden = model.prefix(images, stage.cut)
        logits = compute_logits(model, hidden, stage.cut, settings.autocast)
        labels = torch.zeros(size, dtype=torch.int64, device=settings.device)
        batch_loss(logits, labels, settings.label_smoothing, settings.class_weights).backward()  # type: ignore[no-untyped-call]
    del moments


@contextlib.contextmanager
def _restoring(components: RunComponents, epochs_done: int) -> Iterator[None]:
    """Restore buffers, modes and random streams after the block, and free its memory."""
    model, settings = components.model, components.settings
    rng = rng_states(settings.device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        freeze_blocks(model, settings.schedule.cut(epochs_done))
        set_rng_states(rng, settings.device)
        if settings.device.type != "cpu":
            torch.get_device_module(settings.device).empty_cache()
