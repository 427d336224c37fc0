"""How long the end of a run waits for W&B: a client that starts, a server that answers, one that does not."""

import io
import json
import queue
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.tracking import mirror_client
from finetune.tracking.mirror_client import MirrorClient, WandbRunRef

TARGET = WandbRunRef("tester", "trials", "abcd1234")
WAIT, UNREACHED = 20.0, 2.0  # seconds, see `end_run`


class Lines:
    """Standard output of a mirror; a line that was sent has been read once `queue.join` returns."""

    def __init__(self) -> None:
        self.queue: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[str]:
        while True:
            yield self.queue.get()
            self.queue.task_done()


class FakeMirror:
    """A mirror process on a clock of its own, which only `wait` moves on.

    Args:
        events: (seconds, message or exit code), in order.
    """

    def __init__(self, events: list[tuple[float, dict[str, Any] | int]]) -> None:
        self.now, self.events, self.pid = 0.0, events, 4242
        self.stdin, self.stdout = io.StringIO(), Lines()

    def wait(self, seconds: float | None = None) -> int:
        """Send the messages that are due; return the exit code when that is."""
        self.now += seconds or 0.0
        while self.events and self.events[0][0] <= self.now:
            event = self.events.pop(0)[1]
            if isinstance(event, int):
                return event
            self.stdout.queue.put(json.dumps(event))
            self.stdout.queue.join()
        if seconds is None:  # after it was killed
            return -9
        raise subprocess.TimeoutExpired("mirror", seconds)


def end_run(
    monkeypatch: pytest.MonkeyPatch, *events: tuple[float, dict[str, Any] | int], wait: float | None = None
) -> tuple[bool, float]:
    """End a run whose mirror does this; return whether everything arrived, and the seconds that the end took.

    The default is to wait WAIT seconds at most, and UNREACHED seconds if the server does not answer.
    """
    mirror, killed = FakeMirror(list(events)), []
    monkeypatch.delenv(mirror_client.WAIT_VARIABLE, raising=False)
    monkeypatch.setattr(mirror_client, "WAIT_SECONDS", WAIT)
    monkeypatch.setattr(mirror_client, "UNREACHED_SECONDS", UNREACHED)
    monkeypatch.setattr(mirror_client, "time", SimpleNamespace(monotonic=lambda: mirror.now))
    monkeypatch.setattr(mirror_client.os, "killpg", lambda pid, _: killed.append(pid))
    monkeypatch.setattr(MirrorClient, "_start", lambda *_: mirror)
    has_arrived = MirrorClient(TARGET, wait).end(0, "finished")
    assert mirror.stdin.closed
    assert killed == ([] if mirror.now < WAIT and not mirror.events else [mirror.pid])
    return has_arrived, mirror.now


CONNECTING, REACHED = {"connecting": True}, {"url": "u"}


def test_a_client_that_takes_long_to_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, or from a slow disk: the server has not been asked yet, so it is not silent."""
    assert end_run(monkeypatch, (3.0, CONNECTING), (4.5, REACHED), (9.0, 0))[0]


def test_a_server_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when it is asked; a time that the user has set is waited in full."""
    has_arrived, seconds = end_run(monkeypatch, (1.0, CONNECTING), (60.0, 0))
    assert not has_arrived
    assert seconds == pytest.approx(1.0 + UNREACHED, abs=0.2)
    assert end_run(monkeypatch, (0.0, CONNECTING), (3.5, 0), wait=30.0)[0]


def test_a_mirror_that_sends_for_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server answers, but not everything arrives in time."""
    has_arrived, seconds = end_run(monkeypatch, (0.0, CONNECTING), (0.5, REACHED), (60.0, 0))
    assert not has_arrived
    assert seconds == pytest.approx(WAIT, abs=0.2)


def test_a_mirror_that_failed_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its exit code."""
    has_arrived, seconds = end_run(monkeypatch, (0.0, 1))
    assert not has_arrived
    assert seconds < 0.2
