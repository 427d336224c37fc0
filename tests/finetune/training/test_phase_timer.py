"""Where the time of an epoch goes."""

import time

import pytest

from finetune.training.metering import PHASES, PhaseTimer


def test_parts_add_up_to_the_whole_and_the_inner_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is counted twice, whatever is nested in what."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = PhaseTimer({"val": 1.0})
    now[0] += 1
    with timer.phase("val"):
        now[0] += 2
        with timer.phase("cache"):
            now[0] += 4
        now[0] += 8
    now[0] += 16
    assert timer.seconds_by_phase() == {**dict.fromkeys(PHASES, 0.0), "val": 11.0, "cache": 4.0, "other": 17.0}
    assert sum(timer.seconds_by_phase().values()) == now[0] - 100 + 1


def test_waiting_counts_the_time_until_an_item_comes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with an item is not the loader's."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def items():  # type: ignore[no-untyped-def]
        for item in range(3):
            now[0] += 5
            yield item
        now[0] += 1

    timer, got = PhaseTimer(), []
    for item in timer.time_iterator(items()):
        got.append(item)
        now[0] += 10
    assert got == [0, 1, 2]
    assert (timer.seconds_by_phase()["loader"], timer.seconds_by_phase()["other"]) == (16.0, 30.0)


def test_an_error_inside_leaves_the_timer_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is interrupted keeps the time it had spent."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = PhaseTimer()

    def fail() -> None:
        with timer.phase("suffix"):
            now[0] += 3
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    now[0] += 2
    assert (timer.seconds_by_phase()["suffix"], timer.seconds_by_phase()["other"]) == (3.0, 2.0)
