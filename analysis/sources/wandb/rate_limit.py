"""A rate limit for requests, and retries with exponential back-off."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE_SECONDS = 1.0  # at most; the maximum doubles with each retry

Result = TypeVar("Result")


class Stopped(Exception):
    """Another thread has called `Limiter.stop`."""


class Limiter:
    """A token bucket, shared by threads: `burst` calls at once, then `a_minute` per minute."""

    def __init__(self, a_minute: float, burst: int) -> None:
        self._a_second, self._burst = a_minute / 60, burst
        self._tokens, self._updated = float(burst), time.monotonic()
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def take(self, calls: int = 1) -> None:
        """Wait until `calls` more calls are allowed.

        Raises:
            Stopped: `stop` was called.
        """
        with self._lock:
            self._tokens = self._current_tokens() - calls
            debt = -self._tokens / self._a_second
        self.sleep(debt)

    def sleep(self, seconds: float) -> None:
        """Wait; raises Stopped like `take`."""
        if self._stopped.wait(max(seconds, 0)):
            raise Stopped

    def empty(self) -> None:
        """Take all tokens, after the server reported too many requests."""
        with self._lock:
            self._tokens = min(self._current_tokens(), 0.0)

    def stop(self) -> None:
        """End all present and future waiting."""
        self._stopped.set()

    def _current_tokens(self) -> float:
        """Return how many calls are allowed at once; a negative number counts the calls that wait."""
        previous, self._updated = self._updated, time.monotonic()
        return min(self._tokens + (self._updated - previous) * self._a_second, self._burst)


def retry(
    call: Callable[[], Result],
    limiter: Limiter,
    is_retryable: Callable[[Exception], bool],
    calls: int,
    max_tries: int,
) -> Result:
    """Return the result of `call`, retried after a pause while `is_retryable` accepts its error.

    Args:
        calls: number of requests that it makes; 0 if the server does not count them.

    Raises:
        Stopped: see `Limiter.take`.
    """
    for number in range(max_tries):
        if calls:
            limiter.take(calls)
        try:
            return call()
        except Exception as error:
            if number == max_tries - 1 or not is_retryable(error):
                raise
        limiter.empty()
        # Random, so that threads that failed together do not retry together.
        limiter.sleep(FIRST_PAUSE_SECONDS * 2**number * random.uniform(0.5, 1))
    raise AssertionError("unreachable: the last try returns or raises")
