"""Simulated sweeps with known answers: how often the comparison errs, what it detects, and what its advice costs.

python -m analysis.simulate            the table of level and power, and that of the advice (`make simulate`)
python -m analysis.simulate --sweeps N more sweeps per row, for less Monte Carlo error
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from analysis.stats.crossed import Estimate, Floats, compare_crossed
from analysis.stats.tests import ALPHA
from analysis.tables.verdict import MARGIN, choose_recommended
from finetune.system.output import SafeConsole, command

DIFFICULTY_SD = 2.5  # of images, on the logit scale: most images are easy or hard for every network
ACCURACY = 0.85
RUNS = ((2, 2), (3, 3), (5, 5), (2, 5))  # of two arms
IMAGES = (300, 2000)
SEED_SDS = (0.0, 1.0, 3.0)  # points
DIFFERENCE = 0.03  # whose power is measured
DRAWS = 200  # of the two-way bootstrap, the yardstick
KINDS = {  # accuracies of the arms, the cheapest first, as `COSTS`
    "steps": (0.60, 0.79, 0.82, 0.85, 0.88),
    "plateau": (0.55, 0.84, 0.86, 0.865, 0.87),
    "all equal": (0.85, 0.85, 0.85, 0.85, 0.85),
    "cheapest best": (0.88, 0.85, 0.82, 0.79, 0.60),
    "near the top": (0.40, 0.70, 0.90, 0.905, 0.91),
}
COSTS = (0.3, 1.0, 3.0, 6.0, 9.0)  # minutes of a run
ADVICE_SD = 1.2  # points, between seeds
VAL_IMAGES, TEST_IMAGES, ADVICE_RUNS = 600, 300, 3


class Simulator:
    """Draws correctness matrices of arms that share test images."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        difficulties = np.random.default_rng(0).normal(0, DIFFICULTY_SD, 20_000)
        self._offsets = np.linspace(-9, 12, 400)
        self._accuracies = np.array([_sigmoid(difficulties + offset).mean() for offset in self._offsets])

    def draw(self, accuracies: Sequence[float], runs: Sequence[int], images: int, seed_sd: float) -> list[Floats]:
        """Return (runs, images) 0 or 1 of each arm.

        Args:
            seed_sd: standard deviation between the runs of an arm, in points of accuracy.
        """
        difficulty = self.rng.normal(0, DIFFICULTY_SD, images)
        arms = []
        for accuracy, count in zip(accuracies, runs, strict=True):
            of_runs = np.clip(self.rng.normal(accuracy, seed_sd / 100, count), 0.02, 0.995)
            offsets = np.interp(of_runs, self._accuracies, self._offsets)
            chances = _sigmoid(difficulty[None, :] + offsets[:, None])
            arms.append((self.rng.random((count, images)) < chances).astype(float))
        return arms


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def compare_by_bootstrap(first: Floats, second: Floats, rng: np.random.Generator) -> Estimate:
    """Return the difference of two arms by the two-way bootstrap, which counts the residual twice (a yardstick).

    Rows and columns are drawn independently, n - 1 of n runs (Owen, Annals of Applied Statistics 2007; Rao and Wu, JASA
    1988).
    """
    images = first.shape[1]
    weights = rng.multinomial(images, np.full(images, 1 / images), DRAWS) / images
    means = []
    for arm in (first, second):
        by_run = weights @ arm.T
        drawn = rng.integers(0, len(arm), (DRAWS, len(arm) - 1))
        means.append(np.take_along_axis(by_run, drawn, axis=1).mean(axis=1))
    parts = [(float(arm.mean(axis=1).var(ddof=1)) / len(arm), len(arm) - 1) for arm in (first, second)]
    variance = max(float((means[0] - means[1]).var()), sum(part for part, _ in parts))
    denominator = sum(part**2 / df for part, df in parts)
    df = variance**2 / denominator if denominator else np.inf
    return Estimate(float(first.mean() - second.mean()), float(np.sqrt(variance)), df)


@dataclass(frozen=True)
class Rates:
    """The shares of simulated sweeps in which two arms were called different.

    Attributes:
        level: where they are equal.
        power, bootstrap_power: where they differ by DIFFERENCE; by this project's test, and by the two-way bootstrap.
    """

    level: float
    power: float
    bootstrap_power: float


def false_positives(runs: tuple[int, int], images: int, seed_sd: float, sweeps: int) -> float:
    """Return the share of simulated sweeps in which two equal arms are called different."""
    simulator = Simulator(seed=1)
    arms = (simulator.draw((ACCURACY, ACCURACY), runs, images, seed_sd) for _ in range(sweeps))
    return float(np.mean([compare_crossed(first, second).p_value < ALPHA for first, second in arms]))


def error_rates(runs: tuple[int, int], images: int, seed_sd: float, sweeps: int) -> Rates:
    """Return the error rates of the comparison of two arms."""
    simulator = Simulator(seed=2)
    counts = np.zeros(2)
    for _ in range(sweeps):
        better, worse = simulator.draw((ACCURACY, ACCURACY - DIFFERENCE), runs, images, seed_sd)
        p_values = (
            compare_crossed(better, worse).p_value,
            compare_by_bootstrap(better, worse, simulator.rng).p_value,
        )
        counts += [p < ALPHA for p in p_values]
    return Rates(false_positives(runs, images, seed_sd, sweeps), *(counts / sweeps))


@dataclass(frozen=True)
class AdviceCost:
    """What it costs to follow the recommendation, over simulated sweeps.

    Attributes:
        lost: points of true accuracy below the best arm, the mean.
        lost_3: share of sweeps that lose 3 points or more.
        saved: share of the candidate's training time that the recommended arm saves, the mean.
    """

    lost: float
    lost_3: float
    saved: float


def advice_cost(accuracies: Sequence[float], sweeps: int, margin: float = MARGIN) -> AdviceCost:
    """Return what following the recommendation costs for arms of these true accuracies."""
    simulator = Simulator(seed=2)
    runs = [ADVICE_RUNS] * len(accuracies)
    lost, saved = np.empty(sweeps), np.empty(sweeps)
    for sweep in range(sweeps):
        # Val and test images of the same runs: a run that is lucky in its seed is lucky on both.
        correct = simulator.draw(accuracies, runs, VAL_IMAGES + TEST_IMAGES, ADVICE_SD)
        val = [arm[:, :VAL_IMAGES].mean() for arm in correct]
        candidate = int(np.argmax(val))
        test = [arm[:, VAL_IMAGES:] for arm in correct]
        bounds = {
            arm: compare_crossed(test[arm], test[candidate]).lower_bound()
            for arm in range(len(test))
            if arm != candidate
        }
        costs = dict(enumerate(COSTS))
        chosen = choose_recommended(candidate, bounds, costs, margin)
        lost[sweep] = (max(accuracies) - accuracies[chosen]) * 100
        saved[sweep] = 1 - COSTS[chosen] / COSTS[candidate]
    return AdviceCost(float(lost.mean()), float((lost >= 3 - 1e-9).mean()), float(saved.mean()))


@command
def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m analysis.simulate", description="Simulate sweeps.")
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps per row (default: 1000)")
    sweeps = parser.parse_args(arguments).sweeps
    console = SafeConsole(stderr=True)
    cells = [(runs, images, sd) for runs in RUNS for images in IMAGES for sd in SEED_SDS]
    shown = track(cells, "simulating", console=console, transient=True, disable=not console.is_terminal)
    print("| runs | test images | seed sd | false positives | power for 3 points | power of the two-way bootstrap |")
    print("|---|--:|--:|--:|--:|--:|")
    for runs, images, sd in shown:
        rates = error_rates(runs, images, sd, sweeps)
        print(
            f"| {runs[0]} and {runs[1]} | {images:,} | {sd:g} | {rates.level:.1%} | {rates.power:.0%} | "
            f"{rates.bootstrap_power:.0%} |"
        )
    print("\n| true accuracies (cheapest first) | points lost | 3 or more lost | time saved |\n|---|--:|--:|--:|")
    for name, accuracies in KINDS.items():
        cost = advice_cost(accuracies, sweeps)
        listed = "/".join(f"{accuracy * 100:g}" for accuracy in accuracies)
        print(f"| {name}: {listed} | {cost.lost:.2f} | {cost.lost_3:.1%} | {cost.saved:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
