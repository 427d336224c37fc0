"""Requests to a server that counts them: no more a minute than allowed, and another try when it is busy or away."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Stopped(Exception):
    """Another thread has called `Limiter.stop`; what is waiting gives up."""


class Limiter:
    """So many calls at once, and from then on so many a minute, over all threads that share it."""

    def __init__(self, a_minute: float, burst: int) -> None:
        self._a_second, self._burst = a_minute / 60, burst
        self._free, self._at = float(burst), time.monotonic()
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def take(self, calls: int = 1) -> None:
        """Wait until so many more calls may be made.

        Raises:
            Stopped: somebody called `stop`, now or before.
        """
        with self._lock:
            self._free = self._free_now() - calls
            debt = -self._free / self._a_second
        self.sleep(debt)

    def sleep(self, seconds: float) -> None:
        """Wait; as `take`, ended by `stop`."""
        if self._stopped.wait(max(seconds, 0)):
            raise Stopped

    def empty(self) -> None:
        """Let nobody have a call at once: the server says that there were too many."""
        with self._lock:
            self._free = min(self._free_now(), 0.0)

    def stop(self) -> None:
        """End all waiting, for good."""
        self._stopped.set()

    def _free_now(self) -> float:
        """Return how many calls may be made at once; below zero are those that wait."""
        before, self._at = self._at, time.monotonic()
        return min(self._free + (self._at - before) * self._a_second, self._burst)


def retry(
    call: Callable[[], Result],
    limiter: Limiter,
    is_passing: Callable[[Exception], bool],
    calls: int,
    tries: int,
    first_seconds: float = 1.0,
) -> Result:
    """Return what `call` returns, called again after a pause while its errors look passing.

    Args:
        calls: how many requests it makes; 0 for what the server does not count.
        first_seconds: the first pause, at most; each later one may be twice as long.

    Raises:
        Stopped: see `Limiter.take`.
    """
    for number in range(tries):
        if calls:
            limiter.take(calls)
        try:
            return call()
        except Exception as error:
            if number == tries - 1 or not is_passing(error):
                raise
        limiter.empty()
        # Anywhere in the upper half: threads that failed together do not come back together.
        limiter.sleep(first_seconds * 2**number * random.uniform(0.5, 1))
    raise AssertionError("unreachable: the last try returns or raises")
