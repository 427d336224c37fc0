"""Micro-batches: a batch in smaller pieces when memory runs out, and what batch-norm must not notice of it."""

import gc
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.errors import TrainingError
from finetune.rundir.failures import is_out_of_memory
from finetune.system.output import count_text

Result = TypeVar("Result")


class MicrobatchLimits(NamedTuple):
    """How many images a micro-batch may have."""

    max_size: int | None  # None for complete batches
    min_size: int = 1  # takes precedence over `max_size`; only a batch that is smaller itself is smaller


def microbatch_sizes(count: int, limits: MicrobatchLimits) -> list[int]:
    """Return the sizes of the micro-batches of a batch of `count` images: nearly equal, the largest first."""
    max_size, min_size = limits
    pieces = 1 if max_size is None else max(1, min(-(-count // max_size), count // min_size))
    return [count // pieces + (index < count % pieces) for index in range(pieces)]


def run_in_microbatches(
    work: Callable[[list[int]], Result],
    count: int,
    limits: MicrobatchLimits,
    device: torch.device,
    context: str,
    on_smaller: Callable[[str, list[int]], None],
) -> tuple[Result, int | None]:
    """Do `work` on `count` images, in smaller and smaller micro-batches while memory runs out.

    Args:
        work: called with the sizes of the micro-batches; called again with smaller ones if memory runs out in it.
        limits: with the `max_size` that an earlier call returned.
        context: for messages, such as "at epoch 4, step 1".
        on_smaller: called before a repetition, with "out of memory <context>" and the new sizes.

    Returns:
        The result of `work`, and the `max_size` for the next call.

    Raises:
        TrainingError: the smallest micro-batches do not fit either.
    """
    while True:
        sizes = microbatch_sizes(count, limits)
        try:
            return work(sizes), limits.max_size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            limits = limits._replace(max_size=(sizes[0] + 1) // 2)
            smaller = microbatch_sizes(count, limits)
            if smaller[0] == sizes[0]:
                raise TrainingError(
                    f"out of memory {context}, even with {count_text(sizes[0], 'image')} at a time. Lower image_px, "
                    "choose a smaller backbone, let less of it train, or free memory that other processes hold"
                ) from error
        # Outside of the except clause: up to its end the error keeps what the failed attempt had allocated.
        on_smaller(f"out of memory {context}", smaller)
        gc.collect()
        if device.type != "cpu":
            torch.get_device_module(device).empty_cache()


class BatchNormStats(NamedTuple):
    """The running statistics of the batch-norms that train: the buffers themselves, no copies."""

    moments: list[Tensor]  # running means and variances, (channels,) each
    counts: list[Tensor]  # numbers of batches, () each


def _training_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norms that train, and so normalise by their batch: not those of frozen blocks."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]


def min_batch_size(model: nn.Module) -> int:
    """Return the smallest number of images in a training step: batch-norm needs two."""
    return 2 if _training_norms(model) else 1


def running_stats(model: nn.Module) -> BatchNormStats:
    """Return the running statistics of the batch-norms that train now."""
    norms = [norm for norm in _training_norms(model) if norm.track_running_stats]
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    return BatchNormStats([b for b in buffers if b.dim()], [b for b in buffers if not b.dim()])


def snapshot_stats(stats: BatchNormStats) -> tuple[Tensor, Tensor] | None:
    """Return a copy for `restore_stats`. Every training step makes one: two kernels, whatever the number of layers.

    With EfficientNetV2-S that takes a fifth of the time of copying them one by one (medians, on a CPU).
    """
    return (torch.cat(stats.moments), torch.stack(stats.counts)) if stats.moments else None


def restore_stats(stats: BatchNormStats, snapshot: tuple[Tensor, Tensor] | None) -> None:
    """Reset the statistics to a snapshot."""
    if snapshot is not None:
        values = (*torch.split(snapshot[0], [len(moment) for moment in stats.moments]), *snapshot[1])
        for buffer, value in zip((*stats.moments, *stats.counts), values, strict=True):
            buffer.copy_(value)
