"""Seconds by phase, and energy from counters that look like the kernel's."""

import time
from pathlib import Path

import pytest
import torch

from finetune.training.metering import NO_ENERGY, PHASES, EnergyMeter, PhaseTimer, energy_meter


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


def zone(folder: Path, name: str, microjoules: int | str) -> Path:
    """Make a counter as the kernel has it."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_packages_are_added_and_their_parts_left_out(tmp_path: Path) -> None:
    """Two sockets of 3 and 4 J; the cores inside the first are counted by it already."""
    first, second = zone(tmp_path, "intel-rapl:0", 1_000_000), zone(tmp_path, "intel-rapl:1", 5_000_000)
    inside = zone(tmp_path, "intel-rapl:0:0", 0)
    meter, description = energy_meter(torch.device("cpu"), tmp_path)
    assert description == "CPU packages (RAPL)"
    assert meter.poll() == 0
    first.write_text("4000000\n")
    second.write_text("9000000\n")
    inside.write_text("2000000\n")
    assert meter.poll() == 7


def test_a_counter_that_wraps_around_takes_nothing_away(tmp_path: Path) -> None:
    """What came between two looks is lost, what came before is not."""
    file = zone(tmp_path, "intel-rapl:0", 1_000_000)
    meter, _ = energy_meter(torch.device("cpu"), tmp_path)
    for value in (3_000_000, 500_000, 1_500_000):
        file.write_text(str(value))
        total = meter.poll()
    assert total == 2 + 1


def test_a_machine_that_does_not_tell_is_not_guessed(tmp_path: Path) -> None:
    """No counter, or one that can't be read: not measured, which is not 0."""
    zone(tmp_path, "intel-rapl:0", "garbage")
    for folder in (tmp_path, tmp_path / "nothing"):
        meter, description = energy_meter(torch.device("cpu"), folder)
        assert (meter.poll(), description) == (None, NO_ENERGY)


def test_a_counter_that_fails_for_a_while_is_taken_up_again() -> None:
    """What it counted while it could not be read is not known, and not invented."""
    readings = iter([1.0, 2.0, None, 10.0, 12.0])
    meter = EnergyMeter([lambda: next(readings)])
    assert [meter.poll() for _ in range(4)] == [1, 1, 1, 3]
