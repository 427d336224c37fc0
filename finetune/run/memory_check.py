"""The largest stage of a run, tried before its first epoch: does it fit into memory, and how many pictures at a time?

Where blocks begin to train later, memory would else run out hours after the start. One pass, forward and backward, of
a batch of noise; nothing of the run is changed by it, to the bit.
"""

import logging
from typing import NamedTuple

import torch

from finetune.data.transforms import side_at
from finetune.models.microbatch import min_batch_size, run_in_microbatches
from finetune.models.unfreezing import freeze_blocks
from finetune.run.build import RunComponents
from finetune.training.loss import batch_loss
from finetune.training.metering import peak_memory_mb
from finetune.training.state import random_state, set_random_state

logger = logging.getLogger(__name__)


class UnfreezeStage(NamedTuple):
    """What trains from an epoch on, to the end of the run.

    Attributes:
        epoch: epochs finished when it begins.
        cut: blocks that are frozen.
        side: of the training pictures, in pixels.
    """

    epoch: int
    cut: int
    side: int


def largest_stage(parts: RunComponents) -> UnfreezeStage:
    """Return the last stage: neither what trains nor the pictures' size ever shrink."""
    config, px = parts.config, parts.to.crop_px

    def at(epoch: int) -> tuple[int, int]:
        cut = parts.loop.schedule.cut(epoch)
        return cut, px if cut else side_at(epoch, config.epochs, config.start_px, px)

    last = at(config.epochs - 1)
    return UnfreezeStage(next(epoch for epoch in range(config.epochs) if at(epoch) == last), *last)


def check_largest_stage_fits(parts: RunComponents, epochs_done: int) -> tuple[int, int | None]:
    """Return from which epoch on how many pictures fit at a time, None for whole batches; try that if it is to come.

    Args:
        epochs_done: by the run so far. A stage that has begun, as one that trains the same throughout does with its
            first step, shows by itself whether it fits.

    Raises:
        TrainingError: the smallest pieces do not fit either.
    """
    stage = largest_stage(parts)
    if stage.epoch <= epochs_done:
        return stage.epoch, None
    model, loop, optimizer = parts.model, parts.loop, parts.optimizer
    noise = random_state(loop.device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    count = min(parts.config.batch_size, len(parts.splits.train))
    share = 1 - stage.cut / len(model.blocks)
    where = f"at epoch {stage.epoch + 1}, where {share:.0%} of the backbone trains (tried before the first)"
    freeze_blocks(model, stage.cut)

    def work(sizes: list[int]) -> None:
        model.zero_grad(set_to_none=True)
        fresh = [p for p in model.parameters() if p.requires_grad and not optimizer.state.get(p)]
        states = [torch.zeros_like(parameter) for parameter in fresh for _ in range(2)]  # AdamW's two moments
        generator = torch.Generator().manual_seed(0)
        for size in sizes:
            pictures = torch.randn(size, 3, stage.side, stage.side, generator=generator)
            pictures = pictures.to(loop.device).to(memory_format=torch.channels_last)
            with torch.autocast(loop.device.type, loop.autocast, enabled=loop.autocast is not None):
                with torch.no_grad():
                    hidden = model.prefix(pictures, stage.cut)
                logits = model.suffix(hidden, stage.cut)
            labels = torch.zeros(size, dtype=torch.int64, device=loop.device)
            batch_loss(logits.float(), labels, loop.label_smoothing, loop.class_weights).backward()  # type: ignore[no-untyped-call]
        del states

    try:
        _, limit = run_in_microbatches(
            work, count, None, min_batch_size(model), loop.device, where, lambda what, _: logger.info(f"memory: {what}")
        )
        pieces = "" if limit is None else f", in micro-batches of {limit}"
        needs = f"{peak_memory_mb(loop.device)} MB{pieces}"
        logger.info(f"memory: the largest stage, from epoch {stage.epoch + 1} on, needs {needs}")
        return stage.epoch, limit
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        freeze_blocks(model, loop.schedule.cut(epochs_done))
        set_random_state(noise, loop.device)
        if loop.device.type != "cpu":
            torch.get_device_module(loop.device).empty_cache()
