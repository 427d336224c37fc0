"""Where the time of an epoch goes: wall time by what it was spent on, adding up to the whole."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from finetune.rundir.keys import HISTORY_KEYS

Item = TypeVar("Item")

# What an epoch's time goes into. Of nested parts, the inner one counts; so they add up to the epoch.
PARTS = tuple(key.removeprefix("seconds/") for key in HISTORY_KEYS if key.startswith("seconds/"))


class Clock:
    """Adds up wall time by part, from its making on.

    Args:
        spent: part -> seconds spent already.
    """

    def __init__(self, spent: Mapping[str, float] | None = None) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float, spent or {})
        self._parts = ["other"]
        self._since = time.perf_counter()

    def _settle(self) -> None:
        now = time.perf_counter()
        self._spent[self._parts[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Spend the time in here on `part`, but for what is spent on another part inside."""
        self._settle()
        self._parts.append(part)
        try:
            yield
        finally:
            self._settle()
            self._parts.pop()

    def waiting(self, items: Iterable[Item], part: str = "loader") -> Iterator[Item]:
        """Yield the items; the time until each one comes is spent on `part`."""
        iterator = iter(items)
        while True:
            with self.on(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def spent(self) -> dict[str, float]:
        """Return part -> seconds up to now, for all of PARTS."""
        self._settle()
        return {part: self._spent[part] for part in PARTS}
