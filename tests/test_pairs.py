"""Tests and intervals of differences: answers worked out on paper, and what has to hold whatever the numbers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import stats
from analysis.answer import answer
from analysis.frames import read_sweep
from analysis.outcomes import Outcomes, bootstrap, interval, p_value
from analysis.tables import Comparison, compare
from tests.fabricate import fabricate_run


def test_known_answers() -> None:
    """McNemar of 1 against 5 is 14 of 64; Holm multiplies by 3, 2, 1 and never falls; the middle half of 1 to 8."""
    assert stats.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm([0.02, float("nan"), 0.5])[::2] == pytest.approx([0.04, 0.5])
    assert stats.interquartile_mean([1, 2, 3, 4, 5, 6, 7, 8]) == 4.5
    assert stats.interquartile_mean([1, 2, 3]) is None
    assert stats.probability_of_improvement([1, 3], [1, 2]) == (0.5 + 0 + 1 + 1) / 4


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**16))
def test_an_interval_contains_its_mean_and_repeats(runs: int, pictures: int, seed: int) -> None:
    """Whatever the outcomes; equal generators give equal intervals."""
    right = (np.random.default_rng(seed).random((runs, pictures)) < 0.7).astype(float)
    names, paths = tuple(map(str, range(runs))), tuple(map(str, range(pictures)))
    drawn = [bootstrap(Outcomes(names, paths, right), [range(runs)], np.random.default_rng(seed), 100) for _ in "ab"]
    assert np.array_equal(*drawn)
    low, high = interval(drawn[0][:, 0], right.mean())
    assert 0 <= low <= right.mean() <= high <= 1


def test_a_bootstrap_of_one_run_agrees_with_wilson() -> None:
    """One run of 400 pictures: only pictures can be drawn anew, which is what Wilson's interval is about."""
    right = np.array([[1.0] * 320 + [0.0] * 80])
    outcomes = Outcomes(("a",), tuple(map(str, range(400))), right)
    found = interval(bootstrap(outcomes, [[0]], np.random.default_rng(0))[:, 0], 0.8)
    assert found == pytest.approx(stats.wilson(320, 400), abs=0.006)


def test_a_strategy_is_not_better_than_itself() -> None:
    """The same outcomes on both sides: no difference can be told."""
    right = (np.random.default_rng(0).random((3, 200)) < 0.8).astype(float)
    outcomes = Outcomes(tuple("abcdef"), tuple(map(str, range(200))), np.concatenate([right, right]))
    drawn = bootstrap(outcomes, [[0, 1, 2], [3, 4, 5]], np.random.default_rng(0))
    assert p_value(drawn[:, 0] - drawn[:, 1]) > 0.8


def sweep_of(folder: Path, wrong: dict[str, list[range]]) -> Comparison:
    """Return the comparison of strategies on 100 pictures, of which each seed's run names these wrongly."""
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
    assert answer(comparison).verdict == "distinguishable"
    assert answer(comparison).headline.startswith("Use full: 92.0% on test, 12.0 points above head")


def test_equal_strategies_get_no_verdict(tmp_path: Path) -> None:
    """As many wrong, but others: nothing can be told, and the sentence says so."""
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": [range(80, 100)] * 3})
    assert answer(comparison).verdict == "not distinguishable"
    assert "can't be told from none" in " ".join(answer(comparison).sentences)


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    """The same mean from seeds that agree, and from seeds that do not."""
    apart = [range(40), range(20), range(0)]
    comparison = sweep_of(tmp_path, {"head": [range(20)] * 3, "full": apart})
    widths = comparison.strategies["test_accuracy_high"] - comparison.strategies["test_accuracy_low"]
    assert widths[1] > 1.5 * widths[0]


def test_a_third_that_can_not_be_told_from_the_first_keeps_the_verdict_open(tmp_path: Path) -> None:
    """gradual is 10 points behind on the same pictures, full as far behind on others: only the one can be told."""
    wrong = {"partial": [range(10)] * 3, "gradual": [range(20)] * 3, "full": [range(12, 32)] * 3}
    told = answer(sweep_of(tmp_path, wrong))
    assert told.verdict == "not distinguishable"
    assert told.level == ("partial", "full")
    assert told.headline.startswith("partial and full are not distinguishable with 3 seeds: partial is ahead")
    assert "partial minus full" in " ".join(told.sentences)
