"""How often the server is asked, and what is asked again."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from analysis import fetch, server_errors
from analysis.patience import Limiter, Stopped, patiently


def test_no_more_requests_a_minute_than_allowed() -> None:
    """A burst at once, the rest one by one; `stop` ends the waiting."""
    limiter, began = Limiter(6000, 20), time.monotonic()
    for _ in range(20):
        limiter.take()
    assert time.monotonic() - began < 0.18
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: limiter.take(), range(40)))
    assert 0.35 < time.monotonic() - began < 30
    time.sleep(0.2)
    limiter.empty()
    began = time.monotonic()
    limiter.take(10)  # nothing at once, though there had been time to save up
    assert time.monotonic() - began > 0.08
    threading.Timer(0.1, limiter.stop).start()
    with pytest.raises(Stopped):
        limiter.take(60_000)
    assert time.monotonic() - began < 100


def test_only_what_may_pass_is_tried_again() -> None:
    """The pauses grow; the last error is the one that is told."""
    limiter, tried, began = Limiter(1e6, 10), [], time.monotonic()

    def fail() -> None:
        tried.append(time.monotonic() - began)
        raise ConnectionError(f"try {len(tried)}")

    with pytest.raises(ConnectionError, match="try 3"):
        patiently(fail, limiter, lambda _: True, calls=1, tries=3, first_seconds=0.1)
    assert 0.05 <= tried[1] - tried[0] <= 0.4
    assert 0.1 <= tried[2] - tried[1] <= 0.5
    tried.clear()
    with pytest.raises(ConnectionError, match="try 1"):
        patiently(fail, limiter, lambda _: False, calls=1, tries=3)


@pytest.mark.parametrize("value", ["many", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The message names the variable."""
    monkeypatch.setenv(server_errors.CALLS_VARIABLE, value)
    with pytest.raises(server_errors.FetchError, match=server_errors.CALLS_VARIABLE):
        fetch.connect()
