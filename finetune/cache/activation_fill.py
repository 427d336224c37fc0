"""Fills entries of activations: one pass over the images of a view computes all cuts that are asked for."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from finetune.cache import activation_entries, store
from finetune.cache.activation_entries import ActivationEntries
from finetune.cache.activation_reader import FILE
from finetune.cache.entry_writer import EntryWriter
from finetune.cache.reuse import ActivationKey
from finetune.cache.store import FillCallbacks
from finetune.errors import RunInterrupted, TrainingError
from finetune.models.microbatch import MicrobatchLimits, run_in_microbatches

logger = logging.getLogger(__name__)

CHUNK = 16  # images in one pass; few, so that a run with a frozen part needs little memory
FLOAT16_MAX = float(torch.finfo(torch.float16).max)

ImagesInOrder = Callable[[int], Iterable[Tensor]]  # index of the first image -> CHUNKs of inputs, in the split's order


class _Float16Overflow(Exception):
    """An activation does not fit into float16."""


class ActivationFiller:
    """Computes activations and writes them into the store."""

    def __init__(self, entries: ActivationEntries, callbacks: FillCallbacks) -> None:
        self._entries, self._callbacks = entries, callbacks
        self._max_size: int | None = None  # images in one pass, once memory ran out
        self._overflowed_cuts: set[int] = set()

    def fill(self, keys: Iterable[ActivationKey], images_in_order: ImagesInOrder) -> None:
        """Fill these entries of one view; an entry that overflows float16 is computed again for float32.

        Raises:
            RunInterrupted: `callbacks` ask for it; the next call continues after the rows that are written.
            TrainingError: an activation is not finite, or the memory is too small for one image.
            OSError: an entry can't be written.
        """
        dtypes = dict.fromkeys(keys, activation_entries.STORED)
        while True:
            try:
                self._fill_in_one_pass(dtypes, images_in_order)
                return
            except _Float16Overflow as overflow:
                key = overflow.args[0]
                dtypes[key] = np.float32
                if key.cut not in self._overflowed_cuts:
                    place = self._entries.describe_cut(key.cut)
                    logger.info(f"cache: activations before {place} do not fit into float16; keeps float32")
                self._overflowed_cuts.add(key.cut)

    def _fill_in_one_pass(self, dtypes: dict[ActivationKey, type], images_in_order: ImagesInOrder) -> None:
        entries, callbacks = self._entries, self._callbacks
        count = len(entries.splits[next(iter(dtypes)).split])
        with contextlib.ExitStack() as stack:
            writers: dict[ActivationKey, EntryWriter] = {}
            # All processes lock in the order of names, so that two never wait for each other.
            for name, key in sorted((entries.name(key, dtype), key) for key, dtype in dtypes.items()):
                writer = stack.enter_context(store.writing_entry(name, callbacks))
                if writer is not None:  # else another process has just filled it
                    writers[key] = writer
            if not writers:
                return
            done = min(writer.rows for writer in writers.values())
            done = count if done == count else done // CHUNK * CHUNK
            for inputs in images_in_order(done) if done < count else ():
                self._append(inputs, done, writers, dtypes)
                done += len(inputs)
                callbacks.on_progress(done / count)
                if callbacks.interrupted():
                    raise RunInterrupted(f"stopped while filling the cache, at image {done} of {count}")
            for key, writer in writers.items():
                writer.finish(entries.metadata(key, dtypes[key]))

    @torch.no_grad()
    def _append(
        self, inputs: Tensor, done: int, writers: dict[ActivationKey, EntryWriter], dtypes: dict[ActivationKey, type]
    ) -> None:
        """Compute one chunk at all cuts, after `done` images, and append it to the entries that lack it."""
        hidden, start = inputs, 0
        for key in sorted(writers, key=lambda key: key.cut):
            hidden, start = self._run_blocks(hidden, start, key.cut), key.cut
            if writers[key].rows > done:  # an interrupted pass had come further with this one
                continue
            largest = float(hidden.abs().amax())
            if not math.isfinite(largest):
                raise TrainingError(
                    f"activations before {self._entries.describe_cut(key.cut)} are not finite, at images {done + 1} to "
                    f"{done + len(hidden)} of {key.split}: check that the weights are of this backbone"
                )
            if dtypes[key] is np.float16 and largest > FLOAT16_MAX:
                raise _Float16Overflow(key)
            rows = hidden.permute(0, 2, 3, 1) if self._entries.shape(key.cut).channels_last else hidden
            writers[key].append({FILE: rows.cpu().numpy().astype(dtypes[key], order="C")}, len(rows))

    def _run_blocks(self, hidden: Tensor, start: int, cut: int) -> Tensor:
        """Send hidden states through blocks `start` to `cut`, in micro-batches if memory runs out."""

        def work(sizes: list[int]) -> Tensor:
            outputs = [self._entries.prefix.run(part, start, cut) for part in torch.split(hidden, sizes)]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

        def on_smaller(message: str, sizes: list[int]) -> None:
            logger.info(f"cache: {message}: continues with {sizes[0]} images at a time")

        context = f"in the frozen blocks before {self._entries.describe_cut(cut)}"
        limits = MicrobatchLimits(self._max_size)
        device = self._entries.device
        result, self._max_size = run_in_microbatches(work, len(hidden), limits, device, context, on_smaller)
        return result
