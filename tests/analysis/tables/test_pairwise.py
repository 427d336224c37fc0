"""Tests and intervals of differences: answers worked out on paper, and what has to hold whatever the numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from analysis.report.columns import pair_columns
from analysis.report.sentences import describe_verdict
from analysis.simulate import Simulator, false_positives
from analysis.stats import tests
from analysis.stats.crossed import (
    Floats,
    compare_crossed,
    compare_folds,
    compare_unpaired,
    estimate_mean,
    variance_components,
    wilson_interval,
)
from analysis.tables.comparison import Comparison, compare
from analysis.tables.verdict import decide
from finetune.sweep.power import GUESS, detectable_difference, detectable_sentence, planned_error
from tests.support.fabricate import fabricate_run, read_arms


def test_known_answers() -> None:
    """Mid-p of McNemar for 1 against 5: 8 of 64; Holm multiplies by 3, 2, 1 and never falls."""
    assert tests.mcnemar(1, 5) == pytest.approx((2 * (1 + 6) - 6) / 64)
    assert tests.mcnemar(5, 5) == pytest.approx(1 - 252 / 1024 / 2)
    assert tests.mcnemar(0, 0) == 1.0
    assert tests.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert tests.holm([0.02, float("nan"), 0.5])[::2] == pytest.approx([0.04, 0.5])
    assert tests.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 8]) == 4.5
    assert tests.interquartile_mean([1, 2, 3]) is None
    assert tests.probability_of_improvement([1, 3], [1, 2]) == (0.5 + 0 + 1 + 1) / 4


def draw(runs: int, images: int, seed: int, share: float = 0.7) -> Floats:
    return (np.random.default_rng(seed).random((runs, images)) < share).astype(float)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(2, 40), st.integers(0, 2**16))
def test_intervals_contain_their_estimates(first: int, second: int, images: int, seed: int) -> None:
    """Whatever the outcomes; both arms alone inside [0, 1], their difference inside [-1, 1]; p agrees with it."""
    arms = draw(first, images, seed), draw(second, images, seed + 1)
    estimate = compare_crossed(*arms)
    low, high = estimate.interval()
    assert -1 <= low <= estimate.value <= high <= 1
    if low > -1 and high < 1:
        assert (estimate.p_value < tests.ALPHA) == (low > 0 or high < 0)
    swapped = compare_crossed(arms[1], arms[0])
    assert (swapped.value, swapped.se) == pytest.approx((-estimate.value, estimate.se))
    for arm in arms:
        low, high = wilson_interval(estimate_mean(arm), images)
        assert 0 <= low <= arm.mean() + 1e-12
        assert arm.mean() - 1e-12 <= high <= 1


def test_the_variance_is_that_of_the_formula() -> None:
    """Worked out from the definitions for two runs and three images each."""
    first, second = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    runs = [np.var([2 / 3, 1 / 3], ddof=1) / 2, np.var([1, 2 / 3], ddof=1) / 2]
    images = np.var([0.0, 0.0, -1.0], ddof=1) / 3  # of the mean differences by image
    # Residuals of the first: (0, 1/3, 0) - ... sum of squares 1/3 on 2 degrees, of the second the same.
    residual = 2 * (1 / 3 / 2) / 6
    variance = max(sum(runs) + images - residual, sum(runs), images)
    estimate = compare_crossed(first, second)
    assert estimate.value == pytest.approx(-1 / 3)
    assert estimate.se**2 == pytest.approx(variance)
    assert estimate.df == pytest.approx(variance**2 / sum(part**2 for part in runs))


def test_an_arm_is_not_better_than_itself() -> None:
    """Equal outcomes on both sides."""
    arm = draw(3, 200, 0)
    assert compare_crossed(arm, arm).p_value == 1.0


def test_one_run_is_not_tested() -> None:
    """Nothing tells how much another seed would differ."""
    estimate = compare_crossed(draw(1, 100, 0), draw(3, 100, 1))
    assert math.isnan(estimate.p_value)
    assert all(map(math.isnan, estimate.interval()))


def test_without_predictions_it_is_welchs_test_with_the_images_added() -> None:
    """On paper: seeds .5, .6, .7 against .7, .8, .9 have variance .01 each; very many images add nothing."""
    one, other = [0.5, 0.6, 0.7], [0.7, 0.8, 0.9]
    estimate = compare_unpaired(one, other, 1e12)
    assert (estimate.se, estimate.df) == pytest.approx(((0.02 / 3) ** 0.5, 4.0))
    assert estimate.p_value == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue)
    assert compare_unpaired(one, other, 100).se == pytest.approx((0.02 / 3 + (0.24 + 0.16) / 100) ** 0.5)


def test_folds_are_compared_by_the_corrected_t_test() -> None:
    """Nadeau and Bengio: five differences of variance v have the variance v (1/5 + 1/4), on 4 degrees."""
    differences = [0.01, 0.02, 0.03, 0.04, 0.05]
    estimate = compare_folds(differences)
    assert estimate.se == pytest.approx((np.var(differences, ddof=1) * (1 / 5 + 1 / 4)) ** 0.5)
    assert (estimate.value, estimate.df) == (pytest.approx(0.03), 4)


@pytest.mark.parametrize(("runs", "images", "seed_sd"), [((3, 3), 300, 0.0), ((3, 3), 2000, 3.0), ((2, 5), 300, 1.0)])
def test_the_level_is_held(runs: tuple[int, int], images: int, seed_sd: float) -> None:
    """Equal arms are called different in few of 200 sweeps; the slow test has all cells, and more sweeps."""
    assert false_positives(runs, images, seed_sd, sweeps=200) <= 0.09


def sweep_of(folder: Path, wrong: dict[str, list[range]]) -> Comparison:
    """Return the comparison of strategies on 100 images, of which each seed's run names these wrongly."""
    for strategy, seeds in wrong.items():
        for seed, missed in enumerate(seeds):
            answers = [(f"{n}.png", "disc", "square" if n in missed else "disc", 0.9) for n in range(100)]
            fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=1 - len(missed) / 100,
                test=1 - len(missed) / 100, predictions=answers,
            )  # fmt: skip
    return compare(read_arms(folder))


def test_the_same_pictures_tell_what_overlapping_intervals_hide(tmp_path: Path) -> None:
    """20 wrong against 8 of the same 20: the intervals overlap, the paired difference does not hold 0."""
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": [range(8)] * 3})
    head, full = (row for _, row in comparison.arms.iterrows())
    assert head["test_accuracy_high"] >= full["test_accuracy_low"]
    (pair,) = comparison.pairs.to_dict("records")
    assert pair["difference"] == pytest.approx(-0.12)
    assert pair["difference_high"] < 0
    assert (pair["only_one"], pair["only_other"]) == (0, 12)
    assert pair["mcnemar_p"] == pytest.approx(1 / 2**12)  # mid-p: half of the exact value here
    assert pair["probability_of_improvement"] == 0
    assert decide(comparison).status == "distinguishable"
    assert (
        describe_verdict(comparison, decide(comparison)).headline
        == "Use full: 92.0% on test (3 seeds), significantly better than head."
    )


def test_equal_strategies_get_no_verdict(tmp_path: Path) -> None:
    """As many wrong, but others: nothing can be told, and the sentence says so."""
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": [range(80, 100)] * 3})
    assert decide(comparison).status == "not distinguishable"
    sentences = " ".join(describe_verdict(comparison, decide(comparison)).sentences)
    assert "not significant; the data are compatible with any difference in this interval" in sentences


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    """The same mean from seeds that agree, and from seeds that do not."""
    apart = [range(40), range(20), range(0)]
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": apart})
    widths = comparison.arms["test_accuracy_high"] - comparison.arms["test_accuracy_low"]
    assert widths[1] > 1.5 * widths[0]


def test_each_arm_that_does_not_differ_from_the_candidate_is_named(tmp_path: Path) -> None:
    """gradual is 10 points behind on the same images, full as far behind on others: only the first is significant."""
    wrong = {"partial": [range(10)] * 3, "gradual": [range(20)] * 3, "full": [range(12, 32)] * 3}
    comparison = sweep_of(tmp_path, wrong)
    verdict = decide(comparison)
    assert (verdict.status, verdict.candidate, verdict.level) == ("not distinguishable", "partial", ("full",))
    sentences = " ".join(describe_verdict(comparison, verdict).sentences)
    assert "Significantly less accurate than partial on test: gradual (-10.0 points)." in sentences
    assert "full minus partial is -10.0 points" in sentences


def test_three_seeds_without_an_error_have_no_less_doubt_than_one(tmp_path: Path) -> None:
    """100 of 100 images right: where accuracy may lie on others is Wilson's to say."""
    comparison = sweep_of(tmp_path, {"head": [range(0)] * 3, "full": [range(1)] * 3})
    ends = comparison.arms[["test_accuracy_low", "test_accuracy_high"]].to_numpy()
    assert ends[0] == pytest.approx(tests.wilson(100, 100))
    assert (ends[1][0], ends[1][1]) == pytest.approx(tests.wilson(99, 100), abs=0.01)


def test_an_arm_with_one_run_is_neither_tested_nor_recommended(tmp_path: Path) -> None:
    """The others get their verdict all the same."""
    comparison = sweep_of(tmp_path, {"partial": [range(5)] * 3, "full": [range(40)] * 3, "gradual": [range(45)]})
    verdict = decide(comparison)
    assert verdict.status == "distinguishable"
    text = describe_verdict(comparison, verdict)
    assert text.headline == "Use partial: 95.0% on test (3 seeds), significantly better than full."
    assert "Not tested, as it has a single run: gradual." in text.sentences
    pairs = comparison.pairs.set_index(["strategy", "other"])
    assert pairs["p"].isna().tolist() == [True, False, True]
    assert [pair_columns()[3].cell(row) for _, row in comparison.pairs.iterrows()] == ["–", "< 0.001", "–"]


def test_what_the_sweep_can_detect_shrinks_with_more_runs_and_images() -> None:
    """About 5 points for 3 runs and 341 images; single runs detect nothing."""
    points = [detectable_difference(GUESS, *size) * 100 for size in ((2, 341), (3, 341), (5, 341), (3, 2000))]
    assert points == pytest.approx([6.9, 5.1, 4.2, 3.4], abs=0.06)
    assert math.isnan(detectable_difference(GUESS, 1, 341))
    assert detectable_sentence(1, 341).startswith("With 1 run per recipe")
    assert "about 5.1 points" in detectable_sentence(3, 341)


@pytest.mark.slow
def test_the_components_of_simulated_arms_predict_their_error() -> None:
    """Estimated components, put back into the formula, give the standard error that was measured."""
    simulator = Simulator(0)
    measured, planned = [], []
    for _ in range(300):
        first, second = simulator.draw((0.85, 0.82), (3, 3), 600, 1.0)
        measured.append(compare_crossed(first, second).se ** 2)
        planned.append(planned_error(variance_components(first, second), 3, 600)[0] ** 2)
    assert np.mean(planned) == pytest.approx(np.mean(measured), rel=0.1)


def test_runs_that_agree_on_every_image_still_detect_no_smaller_difference_than_an_image(tmp_path: Path) -> None:
    """100 of 100 right in all runs: nothing varies here, and one new image may differ all the same."""
    comparison = sweep_of(tmp_path, {"head": [range(0)] * 3, "full": [range(0)] * 3})
    verdict = decide(comparison)
    assert 0.02 < verdict.detectable < 0.04
    assert "minus head is 0.0 points (-" in " ".join(describe_verdict(comparison, verdict).sentences)
