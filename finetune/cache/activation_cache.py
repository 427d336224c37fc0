"""What the frozen part makes of the images: computed once, kept on disk, shared by all runs that need it.

An entry of the store holds one row an image: what enters block `cut` for one view of each image of a split. It is
computed in float32, in eval mode, and stored in float16; a network whose activations do not fit into float16 gets
float32. The key is of everything that decides the values: the frozen blocks' own weights, the images, their
preprocessing, and the view. One pass over the images fills all cuts that the runs of a sweep need.
"""

import contextlib
import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.cache import entry_writer, reuse, store
from finetune.cache.activation_reader import FILE, ActivationReader
from finetune.cache.reuse import ActivationKey
from finetune.data.splits import Sample
from finetune.data.transforms import Preprocessing
from finetune.errors import RunInterrupted, TrainingError
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.microbatch import run_in_microbatches
from finetune.rundir.failures import is_out_of_memory

logger = logging.getLogger(__name__)

ACTIVATION_VERSION = 1  # to be raised whenever the same key would give other values
CHUNK = 16  # images in one pass; few, so that a run with a frozen part needs little memory
STORED: type = np.float16  # half the bytes of float32, and 7 times closer to it than bfloat16 (in first gradients)
FLOAT16_MAX = float(torch.finfo(torch.float16).max)

InOrder = Callable[[int], Iterable[Tensor]]  # first image -> CHUNKs of inputs from there on, in the split's order


class _StoredShape(NamedTuple):
    """The shape of a row as it is stored, and whether its channels come last there."""

    stored: tuple[int, ...]
    channels_last: bool


class _Float16Overflow(Exception):
    """An activation does not fit into float16."""


@dataclass
class ActivationCache:
    """The activations that a run can use.

    Attributes:
        prefix: deep enough for all cuts in `uses`.
        blocks: of the backbone.
        splits: name -> its images.
        origin: what else decides the values: `data` (the fingerprint), `augment`, `backbone`.
        uses: how often the runs that are to do use what; `auto` keeps what is used twice.
        mode: auto, on or off (see Config.cache).
        on_progress: called with the share that is done while an entry is filled, and with None while another process
            fills it.
    """

    prefix: FrozenPrefix
    blocks: int
    to: Preprocessing
    device: torch.device
    splits: dict[str, Sequence[Sample]]
    origin: dict[str, Any]
    uses: Counter[ActivationKey]
    mode: str
    interrupted: Callable[[], bool]
    on_progress: Callable[[float | None], None]
    _layouts: list["_StoredShape"] = field(default_factory=list)
    _open: dict[ActivationKey, ActivationReader] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _no_room: set[ActivationKey] = field(default_factory=set)
    _piece: int | None = None  # images in one pass at most, once memory ran out

    def rows(self, need: ActivationKey, in_order: InOrder) -> ActivationReader | None:
        """Return activations, filled first if need be; None where they are to be computed each time.

        Args:
            in_order: gives the split's images of this view, as the network wants them.

        Raises:
            Interrupted: as asked; what was computed is kept, and the next call goes on from there.
        """
        if self.mode == "off" or need.cut == 0:
            return None
        if need not in self._open:
            rows = self._find(need)
            if rows is None and not reuse.should_store(need, self.uses, self.mode):
                self._say(
                    f"cache: keeps nothing of {need.split} before {self._place(need.cut)}: the runs to do would use it "
                    "once at most"
                )
            elif rows is None and need not in self._no_room:
                rows = self._fill(need, in_order)
            if rows is None:
                return None
            self._open[need] = rows
        else:
            self._find(need)  # notes its use, so that it is not taken for one that nobody needs
        return self._open[need]

    def _fill(self, need: ActivationKey, in_order: InOrder) -> ActivationReader | None:
        """Compute what is missing of this view at all cuts that are wanted of it; return the rows that are needed."""
        entries = reuse.entries_of_pass(need, self.uses, self.mode)
        missing = [other for other in entries if self._find(other) is None]
        if need not in missing:  # another process has just filled it
            return self._find(need)
        try:
            missing = self._that_fit(missing)
            if need not in missing:
                self._no_room.add(need)
                return None
            self._compute(dict.fromkeys(missing, STORED), in_order)
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            self._no_room.add(need)
            self._say(f"cache: can't be filled ({error}); computes the frozen part in each epoch")
            return None
        return self._find(need)

    def _that_fit(self, missing: list[ActivationKey]) -> list[ActivationKey]:
        """Return those that the disk budget has room for, the smallest first, and say what comes of them."""
        fitting: list[ActivationKey] = []
        for other in sorted(missing, key=self._bytes):
            size = sum(map(self._bytes, [*fitting, other]))
            if store.make_room(size, [self._name(need, STORED) for need in [*fitting, other]]):
                fitting.append(other)
                uses = f"{self.uses[other]} epochs of the runs to do" if self.uses[other] else "this run"
                what = other.split if other.view is None else f"{other.split} view {other.view}"
                self._say(
                    f"cache: {what} before {self._place(other.cut)}: {self._bytes(other) / 1e9:.3f} GB, for {uses}"
                )
            else:
                self._say(
                    f"cache: no room for {other.split} before {self._place(other.cut)} ({size / 1e9:.2f} GB of "
                    f"{store.budget_bytes() / 1e9:.1f}; FINETUNE_CACHE_GB): computes it in each epoch"
                )
        return fitting

    def _place(self, cut: int) -> str:
        return "the head" if cut == self.blocks else f"block {cut + 1} of {self.blocks}"

    def _say(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            logger.info(line)

    def _compute(self, wanted: dict[ActivationKey, type], in_order: InOrder) -> None:
        """Fill these entries in one pass over the images; one that overflows float16 starts again in float32."""
        while wanted:
            try:
                self._one_pass(wanted, in_order)
                return
            except _Float16Overflow as overflow:
                need = overflow.args[0]
                self._say(f"cache: activations before {self._place(need.cut)} do not fit into float16; keeps float32")
                wanted[need] = np.float32

    def _one_pass(self, wanted: dict[ActivationKey, type], in_order: InOrder) -> None:
        count = len(self.splits[next(iter(wanted)).split])
        with contextlib.ExitStack() as stack:
            drafts = {}
            # In the order of names, so that two processes never wait for each other.
            for need in sorted(wanted, key=lambda need: self._name(need, wanted[need])):
                draft = stack.enter_context(
                    store.writing_entry(
                        self._name(need, wanted[need]), self.interrupted, lambda: self.on_progress(None)
                    )
                )
                if draft is not None:  # else another process has just filled it
                    drafts[need] = draft
            if not drafts:
                return
            done = min(draft.rows for draft in drafts.values())
            done = count if done == count else done // CHUNK * CHUNK
            with torch.no_grad():
                for inputs in in_order(done) if done < count else ():
                    self._append(inputs, done, drafts, wanted)
                    done += len(inputs)
                    self.on_progress(done / count)
                    if self.interrupted():
                        raise RunInterrupted(f"stopped while filling the cache, at image {done} of {count}")
            for need, draft in drafts.items():
                layout = self._layout(need.cut)
                about = {"shape": [count, *layout.stored], "channels_last": layout.channels_last}
                draft.finish({**self._what(need, wanted[need]), **about})

    def _append(
        self,
        inputs: Tensor,
        done: int,
        drafts: dict[ActivationKey, entry_writer.EntryWriter],
        types: dict[ActivationKey, type],
    ) -> None:
        hidden, at = inputs, 0
        for need in sorted(drafts, key=lambda need: need.cut):
            hidden, at = self._through(hidden, at, need.cut), need.cut
            draft = drafts[need]
            if draft.rows > done:  # an interrupted build had come further with this one
                continue
            largest = float(hidden.abs().amax())
            if not math.isfinite(largest):
                raise TrainingError(
                    f"the frozen part gives numbers that are not finite before {self._place(need.cut)}, at images "
                    f"{done + 1} to {done + len(hidden)} of {need.split}: see that the weights are of this backbone"
                )
            if types[need] is np.float16 and largest > FLOAT16_MAX:
                raise _Float16Overflow(need)
            rows = hidden.permute(0, 2, 3, 1) if self._layout(need.cut).channels_last else hidden
            draft.append({FILE: rows.cpu().numpy().astype(types[need], order="C")}, len(rows))

    def _through(self, hidden: Tensor, start: int, cut: int) -> Tensor:
        """Send images through these blocks, in smaller pieces where memory runs out.

        Raises:
            TrainingError: the memory is too small even for one image.
        """

        def work(sizes: list[int]) -> Tensor:
            parts = [self.prefix.run(part, start, cut) for part in torch.split(hidden, sizes)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        def again(what: str, sizes: list[int]) -> None:
            self._say(f"cache: {what}: goes on with {sizes[0]} images at a time")

        where = f"while the frozen part before {self._place(cut)} was computed"
        result, self._piece = run_in_microbatches(work, len(hidden), self._piece, 1, self.device, where, again)
        return result

    def _find(self, need: ActivationKey) -> ActivationReader | None:
        """Return an entry that is whole, of either type."""
        for kind in (STORED, np.float32):
            with contextlib.suppress(OSError, ValueError):  # evicted at this moment
                folder = store.find_verified(self._name(need, kind))
                if folder is not None:
                    return ActivationReader(folder)
        return None

    def _bytes(self, need: ActivationKey) -> int:
        """Return what an entry takes on disk, in float16."""
        return 2 * len(self.splits[need.split]) * int(np.prod(self._layout(need.cut).stored))

    def _layout(self, cut: int) -> "_StoredShape":
        if not self._layouts:
            self._layouts = list(self._look())
        return self._layouts[cut]

    @torch.no_grad()
    def _look(self) -> Iterator["_StoredShape"]:
        """Send two images through the network, and yield how what enters each block lies, and the features."""
        side = self.to.crop_px
        hidden = torch.zeros(2, 3, side, side, device=self.device).to(memory_format=torch.channels_last)
        for cut in range(len(self.prefix.hashes) + 1):
            hidden = self.prefix.run(hidden, max(cut - 1, 0), cut)
            last = hidden.dim() == 4 and not hidden.is_contiguous()
            row = (hidden.permute(0, 2, 3, 1) if last else hidden)[0]
            yield _StoredShape(tuple(row.shape), last)

    def _name(self, need: ActivationKey, kind: type) -> str:
        return f"activations-{store.key_of(**self._what(need, kind))}"

    def _what(self, need: ActivationKey, kind: type) -> dict[str, Any]:
        paths = "\n".join(sample.path for sample in self.splits[need.split])
        return {
            "version": ACTIVATION_VERSION,
            "blocks": hashlib.sha256("".join(self.prefix.hashes[: need.cut]).encode()).hexdigest(),
            "network": [self.origin["backbone"], need.cut],
            "device": self.device.type,
            "pictures": [need.split, hashlib.sha256(paths.encode()).hexdigest()],
            "preprocessing": asdict(self.to),
            "view": need.view,
            "type": np.dtype(kind).name,
            **({} if need.view is None else {"augment": self.origin["augment"]}),
            "data": self.origin["data"],
        }
