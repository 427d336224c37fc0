"""Memory: the same images in smaller pieces when it runs out; keeping what is freed; how much it was."""

import gc
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from finetune.errors import TrainingError
from finetune.rundir.failures import is_out_of_memory

Result = TypeVar("Result")


def microbatch_sizes(count: int, limit: int | None, least: int = 1) -> list[int]:
    """Return the sizes of the pieces that `count` images are cut into: nearly equal, the largest first.

    Args:
        limit: images in a piece at most, or None for one piece.
        least: images in a piece at least. It comes before `limit`; only a batch that is smaller itself is smaller.
    """
    pieces = 1 if limit is None else max(1, min(-(-count // limit), count // least))
    return [count // pieces + (index < count % pieces) for index in range(pieces)]


def run_in_microbatches(
    work: Callable[[list[int]], Result],
    count: int,
    limit: int | None,
    least: int,
    device: torch.device,
    where: str,
    on_smaller: Callable[[str, list[int]], None],
) -> tuple[Result, int | None]:
    """Do `work` on `count` images in one piece, or in as small ones as memory asks for.

    Args:
        work: called with the sizes of the pieces, again with smaller ones each time memory runs out in it.
        limit: images in a piece at most, as an earlier call returned it; None at first.
        least: see `piece_sizes`.
        where: for messages, such as "at epoch 4, step 1".
        on_smaller: called before a repetition, with "out of memory <where>" and the new sizes.

    Returns:
        What `work` returned, and the limit that the next call should start with.

    Raises:
        TrainingError: the smallest pieces do not fit either.
    """
    while True:
        sizes = microbatch_sizes(count, limit, least)
        try:
            return work(sizes), limit
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            limit = (sizes[0] + 1) // 2
            smaller = microbatch_sizes(count, limit, least)
            if smaller[0] == sizes[0]:
                raise TrainingError(
                    f"out of memory {where}, even with {_image_count(sizes[0])} at a time. Lower image_px, choose a "
                    "smaller backbone, let less of it train, or free memory that other processes hold"
                ) from error
        # Outside of the except clause: up to its end the error keeps what the failed attempt had allocated.
        on_smaller(f"out of memory {where}", smaller)
        gc.collect()
        if device.type != "cpu":
            torch.get_device_module(device).empty_cache()


def _image_count(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


class BatchNormStats(NamedTuple):
    """What batch-norms that train have seen; the tensors are their own.

    Attributes:
        moments: running means and variances, (channels,) each.
        counts: of batches, () each.
    """

    moments: list[Tensor]
    counts: list[Tensor]


def _training_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norms that train, and so see batches as they are: not those of the frozen part."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]


def min_batch_size(model: nn.Module) -> int:
    """Return how few images can train at once: batch-norm needs two."""
    return 2 if _training_norms(model) else 1


def running_stats(model: nn.Module) -> BatchNormStats:
    """Return the running statistics of the batch-norms that train now."""
    norms = [norm for norm in _training_norms(model) if norm.track_running_stats]
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    return BatchNormStats([b for b in buffers if b.dim()], [b for b in buffers if not b.dim()])


def snapshot_stats(seen: BatchNormStats) -> tuple[Tensor, Tensor] | None:
    """Return a copy for `restore`. Every training step makes one: it takes two kernels, however many layers there are.

    With EfficientNetV2-S that takes a fifth of the time of copying one by one (medians, on a CPU).
    """
    return (torch.cat(seen.moments), torch.stack(seen.counts)) if seen.moments else None


def restore_stats(seen: BatchNormStats, copy: tuple[Tensor, Tensor] | None) -> None:
    """Put the statistics back as they were when `copied` was called."""
    if copy is not None:
        parts = (*torch.split(copy[0], [len(moment) for moment in seen.moments]), *copy[1])
        for buffer, part in zip((*seen.moments, *seen.counts), parts, strict=True):
            buffer.copy_(part)
