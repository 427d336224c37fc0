"""Tests and intervals of differences: answers worked out on paper, and what has to hold whatever the numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from analysis.report.columns import pair_columns
from analysis.report.sentences import budget_options, describe_verdict
from analysis.sources.run_directories import read_sweep
from analysis.stats import tests
from analysis.stats.crossed import CorrectnessMatrix, StandardError, bootstrap, p_value, standard_error, t_interval
from analysis.tables.comparison import Comparison, compare
from analysis.tables.verdict import decide, recommended_strategy
from tests.support.fabricate import fabricate_run


def test_known_answers() -> None:
    """McNemar of 1 against 5 is 14 of 64; Holm multiplies by 3, 2, 1 and never falls; the middle half of 1 to 8."""
    assert tests.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert tests.mcnemar(0, 0) == 1.0
    assert tests.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert tests.holm([0.02, float("nan"), 0.5])[::2] == pytest.approx([0.04, 0.5])
    assert tests.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 8]) == 4.5
    assert tests.interquartile_mean([1, 2, 3]) is None
    assert tests.probability_of_improvement([1, 3], [1, 2]) == (0.5 + 0 + 1 + 1) / 4


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**16))
def test_an_interval_contains_its_mean_and_repeats(runs: int, pictures: int, seed: int) -> None:
    """Whatever the outcomes; equal generators give equal intervals."""
    right = (np.random.default_rng(seed).random((runs, pictures)) < 0.7).astype(float)
    names, paths = tuple(map(str, range(runs))), tuple(map(str, range(pictures)))
    drawn = [
        bootstrap(CorrectnessMatrix(names, paths, right), [range(runs)], np.random.default_rng(seed), 100) for _ in "ab"
    ]
    assert np.array_equal(*drawn)
    accuracies = sorted(right.mean(axis=1))
    low, high = t_interval(right.mean(), standard_error(drawn[0][:, 0], accuracies))
    assert 0 <= low <= right.mean() <= high <= 1


def test_a_bootstrap_of_one_run_agrees_with_wilson() -> None:
    """One run of 400 images: only images can be drawn anew, which is what Wilson's interval is about."""
    right = np.array([[1.0] * 320 + [0.0] * 80])
    outcomes = CorrectnessMatrix(("a",), tuple(map(str, range(400))), right)
    found = t_interval(0.8, standard_error(bootstrap(outcomes, [[0]], np.random.default_rng(0))[:, 0], [0.8]))
    assert found == pytest.approx(tests.wilson(320, 400), abs=0.006)


def test_a_strategy_is_not_better_than_itself() -> None:
    """The same outcomes on both sides: no difference can be told."""
    right = (np.random.default_rng(0).random((3, 200)) < 0.8).astype(float)
    outcomes = CorrectnessMatrix(tuple("abcdef"), tuple(map(str, range(200))), np.concatenate([right, right]))
    drawn = bootstrap(outcomes, [[0, 1, 2], [3, 4, 5]], np.random.default_rng(0))
    accuracies = sorted(right.mean(axis=1))
    assert p_value(0.0, standard_error(drawn[:, 0] - drawn[:, 1], accuracies, accuracies)) == 1.0


def test_where_only_seeds_differ_it_is_welchs_test() -> None:
    """On paper: seeds .5, .6, .7 against .7, .8, .9 have variance .01 each, t = -.2 / sqrt(.02 / 3) on 4 degrees."""
    one, other = [0.5, 0.6, 0.7], [0.7, 0.8, 0.9]
    around = standard_error(np.full(100, -0.2), one, other)
    assert around == pytest.approx(((0.02 / 3) ** 0.5, 4.0))
    assert p_value(-0.2, around) == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue)
    alone = t_interval(0.6, standard_error(np.full(100, 0.6), one))
    assert alone == pytest.approx((0.6 - 4.3027 * (0.01 / 3) ** 0.5, 0.6 + 4.3027 * (0.01 / 3) ** 0.5), abs=1e-4)


def test_pictures_alone_give_infinite_degrees_of_freedom_and_nothing_gives_no_width() -> None:
    """A normal interval; and where neither seeds nor images differ, a difference of none can't be told."""
    drawn = np.random.default_rng(0).normal(0.8, 0.02, 100_000)
    around = standard_error(drawn, [0.8, 0.8, 0.8])
    assert around.df == math.inf
    assert t_interval(0.8, around) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=1e-3)
    assert p_value(0.0, standard_error(np.zeros(10), [1.0, 1.0], [1.0, 1.0])) == 1.0
    assert t_interval(0.99, StandardError(0.1, 3.0))[1] == 1.0
    assert t_interval(-0.9, StandardError(0.5, 3.0), minimum=-1.0)[0] == -1.0


def test_the_level_is_held_where_seeds_differ_more_than_pictures() -> None:
    """Equal strategies with 3 seeds each, 2,000 images, seeds 3 points apart: a difference in few of 150 sweeps."""
    rng, told, covered = np.random.default_rng(1), 0, 0
    for _ in range(150):
        seeds = np.clip(rng.normal(0.85, 0.03, 6), 0, 1)
        right = (rng.random((6, 2000)) < seeds[:, None]).astype(float)
        outcomes = CorrectnessMatrix(tuple("abcdef"), tuple(map(str, range(2000))), right)
        drawn = bootstrap(outcomes, [[0, 1, 2], [3, 4, 5]], rng, 300)
        one, other = right[:3].mean(axis=1).tolist(), right[3:].mean(axis=1).tolist()
        around = standard_error(drawn[:, 0] - drawn[:, 1], one, other)
        told += p_value(float(np.mean(one) - np.mean(other)), around) < tests.ALPHA
        low, high = t_interval(float(np.mean(one)), standard_error(drawn[:, 0], one))
        covered += low <= 0.85 <= high
    assert told <= 15
    assert covered >= 0.9 * 150


def sweep_of(folder: Path, wrong: dict[str, list[range]]) -> Comparison:
    """Return the comparison of strategies on 100 images, of which each seed's run names these wrongly."""
    for strategy, seeds in wrong.items():
        for seed, missed in enumerate(seeds):
            answers = [(f"{n}.png", "disc", "square" if n in missed else "disc", 0.9) for n in range(100)]
            fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, test=1 - len(missed) / 100,
                predictions=answers,
            )  # fmt: skip
    return compare(read_sweep(folder))


def test_the_same_pictures_tell_what_overlapping_intervals_hide(tmp_path: Path) -> None:
    """20 wrong against 8 of the same 20: the intervals overlap, the paired difference does not hold 0."""
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": [range(8)] * 3})
    head, full = (row for _, row in comparison.strategies.iterrows())
    assert head["test_accuracy_high"] >= full["test_accuracy_low"]
    (pair,) = comparison.pairs.to_dict("records")
    assert pair["difference"] == pytest.approx(-0.12)
    assert pair["difference_high"] < 0
    assert (pair["only_one"], pair["only_other"]) == (0, 12)
    assert pair["mcnemar_p"] == pytest.approx(2 / 2**12)
    assert pair["probability_of_improvement"] == 0
    assert decide(comparison).verdict == "distinguishable"
    assert describe_verdict(comparison, decide(comparison)).headline.startswith(
        "Use full: 92.0% on test, 12.0 points above head"
    )


def test_equal_strategies_get_no_verdict(tmp_path: Path) -> None:
    """As many wrong, but others: nothing can be told, and the sentence says so."""
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": [range(80, 100)] * 3})
    assert decide(comparison).verdict == "not distinguishable"
    sentences = " ".join(describe_verdict(comparison, decide(comparison)).sentences)
    assert "not significant; the data are compatible with any difference in this interval" in sentences


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    """The same mean from seeds that agree, and from seeds that do not."""
    apart = [range(40), range(20), range(0)]
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": apart})
    widths = comparison.strategies["test_accuracy_high"] - comparison.strategies["test_accuracy_low"]
    assert widths[1] > 1.5 * widths[0]


def test_a_third_that_can_not_be_told_from_the_first_keeps_the_verdict_open(tmp_path: Path) -> None:
    """gradual is 10 points behind on the same images, full as far behind on others: only the one can be told."""
    wrong = {"partial": [range(10)] * 3, "gradual": [range(20)] * 3, "full": [range(12, 32)] * 3}
    comparison = sweep_of(tmp_path, wrong)
    verdict = decide(comparison)
    assert verdict.verdict == "not distinguishable"
    assert verdict.level == ("partial", "full")
    told = describe_verdict(comparison, verdict)
    assert told.headline.startswith("partial and full are not distinguishable with 3 seeds: partial is ahead")
    assert "partial minus full" in " ".join(told.sentences)


def test_three_seeds_without_an_error_have_no_less_doubt_than_one(tmp_path: Path) -> None:
    """100 of 100 images right: where accuracy may lie on others is Wilson's to say."""
    comparison = sweep_of(tmp_path, {"head": [range(0)] * 3, "full": [range(1)] * 3})
    ends = comparison.strategies[["test_accuracy_low", "test_accuracy_high"]].to_numpy()
    assert ends[0] == pytest.approx(tests.wilson(100, 100))
    assert (ends[1][0], ends[1][1]) == pytest.approx(tests.wilson(99, 100), abs=0.01)


def test_a_strategy_with_too_few_seeds_is_neither_told_apart_nor_recommended(tmp_path: Path) -> None:
    """One seed is quicker and far behind; another is alone with its one: each table and sentence says it alike."""
    comparison = sweep_of(tmp_path, {"partial": [range(5)] * 3, "full": [range(40)] * 3, "gradual": [range(45)]})
    told = describe_verdict(comparison, decide(comparison))
    assert told.headline == "Use partial: 95.0% on test, 35.0 points above full, with 3 seeds each."
    assert told.sentences[-1] == "Not tested: gradual, with 1 seed; 3 are needed."
    assert recommended_strategy(comparison, decide(comparison)) == "partial"
    pairs = comparison.pairs.set_index(["strategy", "other"])
    assert pairs["p"].isna().tolist() == [True, False, True]
    cells = dict(zip(pairs.index, (pair_columns()[4].cell(row) for _, row in comparison.pairs.iterrows()), strict=True))
    assert cells == {
        ("partial", "gradual"): "too few seeds",
        ("partial", "full"): "yes",
        ("gradual", "full"): "too few seeds",
    }
    (tmp_path / "one").mkdir()
    one = sweep_of(tmp_path / "one", {"head": [range(40)], "full": [range(5)]})
    assert decide(one).verdict == "too few seeds"
    assert not any("p <" in step.gain or "p =" in step.gain for step in budget_options(one))
