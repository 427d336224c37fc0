"""Energy from counters that look like the kernel's."""

from pathlib import Path

import torch

from finetune.training.metering import NO_ENERGY, EnergyMeter, energy_meter


def zone(folder: Path, name: str, microjoules: int | str) -> Path:
    """Make a counter as the kernel has it."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_packages_are_added_and_their_parts_left_out(tmp_path: Path) -> None:
    """Two sockets of 3 and 4 J; the cores inside the first are counted by it already."""
    first, second = zone(tmp_path, "intel-rapl:0", 1_000_000), zone(tmp_path, "intel-rapl:1", 5_000_000)
    inside = zone(tmp_path, "intel-rapl:0:0", 0)
    counter, told = energy_meter(torch.device("cpu"), tmp_path)
    assert told == "CPU packages (RAPL)"
    assert counter.poll() == 0
    first.write_text("4000000\n")
    second.write_text("9000000\n")
    inside.write_text("2000000\n")
    assert counter.poll() == 7


def test_a_counter_that_wraps_around_takes_nothing_away(tmp_path: Path) -> None:
    """What came between two looks is lost, what came before is not."""
    file = zone(tmp_path, "intel-rapl:0", 1_000_000)
    counter, _ = energy_meter(torch.device("cpu"), tmp_path)
    for value in (3_000_000, 500_000, 1_500_000):
        file.write_text(str(value))
        total = counter.poll()
    assert total == 2 + 1


def test_a_machine_that_does_not_tell_is_not_guessed(tmp_path: Path) -> None:
    """No counter, or one that can't be read: not measured, which is not 0."""
    zone(tmp_path, "intel-rapl:0", "garbage")
    for folder in (tmp_path, tmp_path / "nothing"):
        counter, told = energy_meter(torch.device("cpu"), folder)
        assert (counter.poll(), told) == (None, NO_ENERGY)


def test_a_counter_that_fails_for_a_while_is_taken_up_again() -> None:
    """What it counted while it could not be read is not known, and not invented."""
    told = iter([1.0, 2.0, None, 10.0, 12.0])
    counter = EnergyMeter([lambda: next(told)])
    assert [counter.poll() for _ in range(4)] == [1, 1, 1, 3]
