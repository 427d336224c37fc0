"""SIGINT and SIGTERM as agents take them: the first lets runs save and end, the second ends them at once."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from finetune.signals import SAME_REQUEST_SECONDS, SIGNALS, put_off


class Interrupted(BaseException):
    """SIGINT or SIGTERM came before any run was started.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        self.signal = signal


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise Interrupted: the handler of both signals until runs are started."""
    if not put_off(number, frame):
        raise Interrupted(number)


@dataclass
class Stop:
    """The signals the agent has received: the first lets runs save and end, the second ends them at once."""

    count: int = 0
    signal: int = 0


@contextlib.contextmanager
def signals_noted() -> Iterator[Stop]:
    """Count SIGINT and SIGTERM instead of ending."""
    stop, last = Stop(), -SAME_REQUEST_SECONDS

    def note(number: int, frame: object) -> None:  # noqa: ARG001  (the signature of a signal handler)
        nonlocal last
        before, last = last, time.monotonic()
        if last - before > SAME_REQUEST_SECONDS:
            stop.count += 1
            stop.signal = stop.signal or number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
