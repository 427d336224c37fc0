"""Simulated sweeps: the comparison errs as seldom as it says and detects more than the bootstrap; advice is cheap."""

import itertools

import pytest

from analysis.simulate import IMAGES, KINDS, RUNS, SEED_SDS, Simulator, advice_cost, error_rates, false_positives, main


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "images", "seed_sd"), list(itertools.product(RUNS, IMAGES, SEED_SDS)))
def test_false_positives_are_at_most_6_percent(runs: tuple[int, int], images: int, seed_sd: float) -> None:
    """Equal arms, in every cell: few and many images, seeds that agree and that do not, unequal numbers of runs."""
    assert false_positives(runs, images, seed_sd, sweeps=2000) <= 0.06


@pytest.mark.slow
def test_the_power_is_at_least_1_8_times_the_bootstraps() -> None:
    """In the usual case: 3 runs an arm, 300 test images, seeds that hardly differ, 3 points."""
    rates = error_rates((3, 3), 300, 0.0, sweeps=600)
    assert rates.power >= 1.8 * rates.bootstrap_power
    assert rates.power >= 0.25


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_advice_is_cheap(kind: str) -> None:
    """It loses at most half a point on average, and 3 points or more in at most 5% of sweeps."""
    cost = advice_cost(KINDS[kind], sweeps=400)
    assert cost.lost <= 0.5
    assert cost.lost_3 <= 0.05


def test_a_simulated_arm_has_its_accuracy() -> None:
    """And its seeds differ as much as they are told to."""
    (arm,) = Simulator(0).draw([0.85], [200], 500, 3.0)
    accuracies = arm.mean(axis=1)
    assert accuracies.mean() == pytest.approx(0.85, abs=0.03)
    assert 0.02 < accuracies.std() < 0.045


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a cell, as Markdown."""
    assert main(["--sweeps", "1"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(RUNS) * len(IMAGES) * len(SEED_SDS) + len(KINDS)
