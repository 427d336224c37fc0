"""How long the end of a run waits for W&B: a client that starts, a server that answers, one that does not."""

import subprocess
import sys
import time

import pytest

from finetune.tracking import mirror_client
from finetune.tracking.mirror_client import MirrorClient, WandbRunRef

TARGET = WandbRunRef("tester", "trials", "abcd1234")


def end(monkeypatch: pytest.MonkeyPatch, *lines: str, given: float | None = None) -> tuple[bool, float]:
    """End a run whose mirror is a Python program of these lines; return whether all arrived, and the seconds it took.

    It is waited for 20 s at most, and for 2 s where the server does not answer.
    """
    program = "\n".join(["import json, time", "def say(**what): print(json.dumps(what), flush=True)", *lines])

    def start(_: MirrorClient, __: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    monkeypatch.delenv(mirror_client.WAIT_VARIABLE, raising=False)
    monkeypatch.setattr(mirror_client, "WAIT_SECONDS", 20.0)
    monkeypatch.setattr(mirror_client, "UNREACHED_SECONDS", 2.0)
    monkeypatch.setattr(MirrorClient, "_start", start)
    mirror = MirrorClient(TARGET, given)
    begun = time.monotonic()
    arrived = mirror.end(0, "finished")
    return arrived, time.monotonic() - begun


def test_a_client_that_takes_long_to_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, or from a slow disk: the server has not been asked yet, which is no silence of its."""
    assert end(
        monkeypatch, "time.sleep(3)", "say(connecting=True)", "time.sleep(0.7)", "say(url='u')", "time.sleep(2.5)"
    )[0]


def test_a_server_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when it is asked; who says how long to wait has it waited for."""
    silent = ("say(connecting=True)", "time.sleep(60)")
    arrived, seconds = end(monkeypatch, *silent)
    assert not arrived
    assert 2 <= seconds < 15
    assert end(monkeypatch, "say(connecting=True)", "time.sleep(3.5)", given=30.0)[0]


def test_a_mirror_that_failed_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code says so."""
    arrived, seconds = end(monkeypatch, "raise SystemExit(1)")
    assert not arrived
    assert seconds < 15
