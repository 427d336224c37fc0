"""The verdict: which arm to use, how far the others are from the best, and what the sweep could show."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd

from analysis.stats.crossed import Estimate
from analysis.stats.pareto import pareto_front
from analysis.stats.tests import ALPHA, LEVEL
from analysis.tables.comparison import Comparison, mean_components
from finetune.sweep.power import detectable_difference

Arm = TypeVar("Arm", bound=Hashable)
MARGIN = 0.02  # of accuracy: the default of --margin


@dataclass(frozen=True)
class Difference:
    """Another arm minus the candidate, in mean test accuracy.

    Attributes:
        difference, low, high: fractions; the interval is NaN where there is one run.
        bound: one-sided lower confidence bound of the difference: how much less accurate the arm may be.
        p, p_holm: see `PAIRS`.
        df: degrees of freedom; NaN if unlimited.
        cost_seconds: training time of a run of this arm, filling caches left out; NaN if unknown.
    """

    arm: str
    difference: float
    low: float
    high: float
    bound: float
    p: float
    p_holm: float
    df: float
    cost_seconds: float

    @property
    def is_significant(self) -> bool:
        """Whether the arm differs from the candidate at the 5% level, after Holm's correction."""
        return self.p_holm < ALPHA


@dataclass(frozen=True)
class Verdict:
    """What the comparison decides.

    Attributes:
        candidate: the arm with the highest mean val accuracy.
        recommended: the cheapest arm that is shown to be less accurate than the candidate by less than the margin; the
            candidate if there is none.
        margin: a fraction of accuracy.
        differences: the other arms minus the candidate, in the order of arms.
        alternatives: the arms cheaper than the recommended one that no other arm beats in both val accuracy and cost,
            the cheapest first.
        detectable: the difference that a test with this many runs and images detects with 80% power; NaN if unknown.
        detectable_with_more: the same with two more runs per arm.
        runs_per_arm: the smallest number of runs that an arm's test accuracy is the mean of.
        test_images: the smallest number of an arm; NaN if unknown.
    """

    candidate: str
    recommended: str
    margin: float
    differences: tuple[Difference, ...]
    alternatives: tuple[Difference, ...]
    detectable: float
    detectable_with_more: float
    runs_per_arm: int
    test_images: float

    @property
    def is_tested(self) -> bool:
        """Whether the candidate was tested against at least one other arm."""
        return any(not math.isnan(other.p) for other in self.differences)

    @property
    def level(self) -> tuple[str, ...]:
        """The other arms that were tested and do not differ significantly from the candidate."""
        return tuple(other.arm for other in self.differences if other.p_holm >= ALPHA)

    @property
    def status(self) -> str:
        """The verdict in a word or two, for programs."""
        if not self.differences:
            return "nothing to compare"
        if not self.is_tested:
            return "too few seeds"
        return "not distinguishable" if self.level else "distinguishable"


def decide(comparison: Comparison, margin: float = MARGIN) -> Verdict:
    """Return the verdict that this number of runs and test images allows.

    Args:
        margin: a loss of accuracy that does not matter, a fraction.
    """
    candidate, arms = comparison.candidate, comparison.arms
    differences = tuple(_difference(comparison, str(arm)) for arm in arms["arm"] if arm != candidate)
    cost = own_seconds(comparison.row(candidate))
    costs = {candidate: cost, **{other.arm: other.cost_seconds for other in differences}}
    recommended = choose_recommended(candidate, {other.arm: other.bound for other in differences}, costs, margin)
    price = own_seconds(comparison.row(recommended))
    by_name = {other.arm: other for other in differences}
    alternatives = tuple(
        by_name[arm]
        for arm in _front(arms)
        if arm in by_name and arm != recommended and by_name[arm].cost_seconds < price
    )
    runs, images = int(arms["n_tested"].min()), float(arms["test_pictures"].min())
    components = mean_components(comparison.components)
    return Verdict(
        candidate=candidate,
        recommended=recommended,
        margin=margin,
        differences=differences,
        alternatives=alternatives,
        detectable=math.nan if components is None else detectable_difference(components, runs, images),
        detectable_with_more=math.nan if components is None else detectable_difference(components, runs + 2, images),
        runs_per_arm=runs,
        test_images=images,
    )


def choose_recommended(candidate: Arm, bounds: Mapping[Arm, float], costs: Mapping[Arm, float], margin: float) -> Arm:
    """Return the cheapest arm that is shown to lose less than the margin against the candidate; else the candidate.

    A test of non-inferiority (Lakens, Social Psychological and Personality Science 8, 2017): a difference that is not
    significant is no evidence that there is none.

    Args:
        bounds: the other arms' one-sided lower confidence bounds of (arm minus candidate); NaN where unknown.
        costs: of all arms; NaN where unknown.
    """
    cheaper = [arm for arm, bound in bounds.items() if bound > -margin and costs[arm] < costs[candidate]]
    return min(cheaper, key=lambda arm: costs[arm], default=candidate)


def _difference(comparison: Comparison, arm: str) -> Difference:
    pair = find_pair(comparison, arm, comparison.candidate)
    sign = 1 if pair["strategy"] == arm else -1
    low, high = sorted(sign * float(pair[f"difference_{end}"]) for end in ("low", "high"))
    return Difference(
        arm=arm,
        difference=sign * float(pair["difference"]),
        low=low,
        high=high,
        bound=Estimate(sign * float(pair["difference"]), float(pair["se"]), _df(pair)).lower_bound(LEVEL),
        p=float(pair["p"]),
        p_holm=float(pair["p_holm"]),
        df=float(pair["df"]),
        cost_seconds=own_seconds(comparison.row(arm)),
    )


def _df(pair: "pd.Series") -> float:
    return math.inf if pd.isna(pair["df"]) else float(pair["df"])


def find_pair(comparison: Comparison, first: str, second: str) -> "pd.Series":
    """Return the row of the pairs with these two arms, in either order."""
    pairs = comparison.pairs
    return pairs[pairs["strategy"].isin([first, second]) & pairs["other"].isin([first, second])].iloc[0]


def own_seconds(row: "pd.Series") -> float:
    """Return the training seconds of a run of this arm, without filling caches, which other runs share."""
    return float(row["train_seconds_mean"] - row["cache_seconds_mean"])


def arms_by_budget(comparison: Comparison) -> "list[pd.Series]":
    """Return the rows of the arms on the Pareto front of training time and mean val accuracy, the fastest first."""
    return [comparison.row(arm) for arm in _front(comparison.arms)]


def _front(arms: pd.DataFrame) -> list[str]:
    rows = arms.set_index("arm", drop=False)
    points = pd.DataFrame({"cost": rows.apply(own_seconds, axis=1), "score": rows["val_accuracy_mean"]})
    return pareto_front(points.dropna())
