"""How often the server is asked, and what is asked again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from analysis.sources.wandb import client, errors, rate_limit
from analysis.sources.wandb.rate_limit import Limiter, Stopped, retry


class Clock:
    """Stands for `time` and for the event of a limiter: time passes where it is slept, and nowhere else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(rate_limit, "time", self)

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


def test_a_burst_at_once_and_the_rest_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not used is saved up to one burst; `empty` takes that, and nothing else: what was waited for is paid."""
    clock = Clock(monkeypatch)
    limiter = Limiter(6000, 20)
    limiter._stopped = clock  # type: ignore[assignment]
    for _ in range(20):
        limiter.take()
    assert clock.now == 0
    for _ in range(40):
        limiter.take()
    assert clock.now == pytest.approx(0.4)
    clock.now += 99
    for _ in range(21):
        limiter.take()
    assert clock.now == pytest.approx(99.41)
    clock.now += 99
    limiter.empty()
    limiter.take(10)
    assert clock.now == pytest.approx(198.51)


def test_no_more_requests_a_minute_than_allowed_over_all_threads() -> None:
    """`stop` ends the waiting."""
    limiter, began = Limiter(6000, 20), time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: limiter.take(), range(60)))
    assert time.monotonic() - began > 0.39
    threading.Timer(0.1, limiter.stop).start()
    with pytest.raises(Stopped):
        limiter.take(60_000)
    assert time.monotonic() - began < 100


def test_only_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses grow; the last error is the one that is told."""
    clock, tried = Clock(monkeypatch), []
    limiter = Limiter(1e6, 10)
    limiter._stopped = clock  # type: ignore[assignment]

    def fail() -> None:
        tried.append(clock.now)
        raise ConnectionError(f"try {len(tried)}")

    monkeypatch.setattr(rate_limit, "FIRST_PAUSE_SECONDS", 100.0)
    with pytest.raises(ConnectionError, match="try 3"):
        retry(fail, limiter, lambda _: True, calls=1, max_tries=3)
    assert 50 <= tried[1] - tried[0] <= 101
    assert 100 <= tried[2] - tried[1] <= 201
    tried.clear()
    with pytest.raises(ConnectionError, match="try 1"):
        retry(fail, limiter, lambda _: False, calls=1, max_tries=3)


@pytest.mark.parametrize("value", ["many", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The message names the variable."""
    monkeypatch.setenv(errors.CALLS_VARIABLE, value)
    with pytest.raises(errors.FetchError, match=errors.CALLS_VARIABLE):
        client.connect()
