"""The activations of the frozen prefix that a run reads instead of computing them: which are stored, and where.

Activations are computed once and stored for all runs of a sweep that can use them, within the disk's budget.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field

from finetune.cache import activation_entries, reuse, store
from finetune.cache.activation_entries import ActivationEntries
from finetune.cache.activation_fill import ActivationFiller, ImagesInOrder
from finetune.cache.activation_reader import ActivationReader
from finetune.cache.reuse import ActivationKey
from finetune.cache.store import FillCallbacks
from finetune.rundir.failures import is_out_of_memory

logger = logging.getLogger(__name__)


@dataclass
class ActivationCache:
    """The activations that a run can read.

    Attributes:
        uses: how often the runs that are still to do read each entry; mode auto stores entries read twice.
        mode: auto, on or off (see Config.cache).
    """

    entries: ActivationEntries
    uses: Counter[ActivationKey]
    mode: str
    callbacks: FillCallbacks
    _readers: dict[ActivationKey, ActivationReader] = field(default_factory=dict)
    _without_room: set[ActivationKey] = field(default_factory=set)
    _logged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._filler = ActivationFiller(self.entries, self.callbacks)

    def open(self, key: ActivationKey, images_in_order: ImagesInOrder) -> ActivationReader | None:
        """Return a reader of these activations, filled first if needed; None if the run computes them each time.

        Raises:
            RunInterrupted: the callbacks ask for it; the next call continues where this one stopped.
        """
        if self.mode == "off" or key.cut == 0:
            return None
        reader = self.entries.find(key)  # an open one, too: the entry then counts as used, and is not evicted
        if key in self._readers:
            return self._readers[key]
        if reader is None and not reuse.should_store(key, self.uses, self.mode):
            self._log_once(
                f"cache: keeps nothing of {key.split} before {self.entries.describe_cut(key.cut)}: "
                "the runs to do would use it once at most"
            )
        elif reader is None and key not in self._without_room:
            reader = self._fill(key, images_in_order)
        if reader is not None:
            self._readers[key] = reader
        return reader

    def _fill(self, key: ActivationKey, images_in_order: ImagesInOrder) -> ActivationReader | None:
        """Fill `key`, and in the same pass all missing cuts of its view that should be stored; return its reader."""
        keys = reuse.entries_of_pass(key, self.uses, self.mode)
        missing = [candidate for candidate in keys if self.entries.find(candidate) is None]
        if key not in missing:  # another process has just filled it
            return self.entries.find(key)
        try:
            selected = self._select_within_budget(missing)
            if key in selected:
                self._filler.fill(selected, images_in_order)
                return self.entries.find(key)
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            self._log_once(f"cache: can't be filled ({error}); computes the frozen part in each epoch")
        self._without_room.add(key)
        return None

    def _select_within_budget(self, missing: list[ActivationKey]) -> list[ActivationKey]:
        """Return the entries that the disk budget has room for, the smallest first, and log what happens to each."""
        selected: list[ActivationKey] = []
        for key in sorted(missing, key=self.entries.size):
            candidates = [*selected, key]
            size = sum(map(self.entries.size, candidates))
            if store.make_room(size, [self.entries.name(entry, activation_entries.STORED) for entry in candidates]):
                selected = candidates
                uses = f"{self.uses[key]} epochs of the runs to do" if self.uses[key] else "this run"
                self._log_once(
                    f"cache: {self.entries.describe(key)}: {self.entries.size(key) / 1e9:.3f} GB, for {uses}"
                )
            else:
                self._log_once(
                    f"cache: no room for {key.split} before {self.entries.describe_cut(key.cut)} ({size / 1e9:.2f} GB "
                    f"of {store.budget_bytes() / 1e9:.1f}; {store.BUDGET_VARIABLE}): computes it in each epoch"
                )
        return selected

    def _log_once(self, line: str) -> None:
        if line not in self._logged:
            self._logged.add(line)
            logger.info(line)
