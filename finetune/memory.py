"""Memory: the same pictures in smaller pieces when it runs out; keeping what is freed; how much it was."""

import contextlib
import ctypes
import gc
import platform
import resource
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from finetune.errors import TrainingError
from finetune.rundir.failures import is_out_of_memory

Result = TypeVar("Result")


# mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    By default every tensor of more than 32 MB is mapped anew, and the system clears each of its pages at the first
    touch: a fifth of a training step's time for small networks on the CPU. Elsewhere than on Linux with glibc, nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def peak_memory_mb(device: torch.device) -> int:
    """Return the most memory that this process has had, in MB (1e6 bytes): of the GPU if it computes there."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def piece_sizes(count: int, limit: int | None, least: int = 1) -> list[int]:
    """Return the sizes of the pieces that `count` pictures are cut into: nearly equal, the largest first.

    Args:
        limit: pictures in a piece at most, or None for one piece.
        least: pictures in a piece at least. It comes before `limit`; only a batch that is smaller itself is smaller.
    """
    pieces = 1 if limit is None else max(1, min(-(-count // limit), count // least))
    return [count // pieces + (index < count % pieces) for index in range(pieces)]


def in_pieces(
    work: Callable[[list[int]], Result],
    count: int,
    limit: int | None,
    least: int,
    device: torch.device,
    where: str,
    on_smaller: Callable[[str, list[int]], None],
) -> tuple[Result, int | None]:
    """Do `work` on `count` pictures in one piece, or in as small ones as memory asks for.

    Args:
        work: called with the sizes of the pieces, again with smaller ones each time memory runs out in it.
        limit: pictures in a piece at most, as an earlier call returned it; None at first.
        least: see `piece_sizes`.
        where: for messages, such as "at epoch 4, step 1".
        on_smaller: called before a repetition, with "out of memory <where>" and the new sizes.

    Returns:
        What `work` returned, and the limit that the next call should start with.

    Raises:
        TrainingError: the smallest pieces do not fit either.
    """
    while True:
        sizes = piece_sizes(count, limit, least)
        try:
            return work(sizes), limit
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            limit = (sizes[0] + 1) // 2
            smaller = piece_sizes(count, limit, least)
            if smaller[0] == sizes[0]:
                raise TrainingError(
                    f"out of memory {where}, even with {_pictures(sizes[0])} at a time. Lower image_px, choose a "
                    "smaller backbone, let less of it train, or free memory that other processes hold"
                ) from error
        # Outside of the except clause: up to its end the error keeps what the failed attempt had allocated.
        on_smaller(f"out of memory {where}", smaller)
        gc.collect()
        if device.type != "cpu":
            torch.get_device_module(device).empty_cache()


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
