"""Seeds and folds repeat a recipe: how they are counted and told, and what the folds of a cross-validation change."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.report import columns
from analysis.report.sentences import VerdictText, describe_verdict
from analysis.stats import tests
from analysis.tables.comparison import Comparison, compare
from analysis.tables.recipes import join_replicate_labels, replicate_kind, replicate_label
from analysis.tables.verdict import decide
from finetune.resolve import FIELDS_ADDED_LATER
from finetune.rundir import files
from tests.support.fabricate import fabricate_run, read_arms

NAN = float("nan")


def runs(*points: tuple[float, float]) -> pd.DataFrame:
    """Return runs of these seeds and folds."""
    return pd.DataFrame(points, columns=["seed", "fold"]).assign(split_seed=0.0)


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([(0, NAN)], "1 seed"),
        ([(0, NAN), (1, NAN), (4, NAN)], "3 seeds"),
        ([(0, 2)], "1 fold"),
        ([(0, fold) for fold in range(5)], "5 folds"),
        ([(seed, 0) for seed in range(2)], "2 seeds"),
        ([(seed, fold) for seed in range(3) for fold in range(5)], "3 seeds × 5 folds"),
        ([(0, 0), (0, 1), (1, 0)], "3 runs of 2 seeds × 2 folds"),
    ],
)
def test_what_a_recipe_was_repeated_over(points: list[tuple[float, float]], told: str) -> None:
    """In words that name what differs, and say where a combination is missing."""
    assert replicate_label(runs(*points)) == told


def test_several_recipes_are_told_together() -> None:
    """Numbers of the same kind in one."""
    assert (join_replicate_labels(["3 seeds", "3 seeds"]), replicate_kind(["3 seeds", "1 seed"])) == ("3 seeds", "seed")
    assert join_replicate_labels(["3 seeds", "1 seed"]) == "1 and 3 seeds"
    assert (
        join_replicate_labels(["1 seed"]),
        join_replicate_labels(["5 folds"]),
        replicate_kind(["5 folds", "1 fold"]),
    ) == ("1 seed", "5 folds", "fold")
    assert join_replicate_labels(["3 seeds × 5 folds", "5 folds"]) == "3 seeds × 5 folds and 5 folds"
    assert (
        replicate_kind(["3 seeds × 5 folds"])
        == replicate_kind(["7 runs of 2 seeds × 5 folds"])
        == replicate_kind(["3 seeds", "5 folds"])
        == "run"
    )


def answers(fold: int, test: float) -> list[tuple[str, str, str, float]]:
    """Return a fold's predictions, of which the share `test` is right."""
    return [(f"{fold}/{n}.png", "disc", "disc" if n < round(20 * test) else "square", 0.9) for n in range(20)]


def cross_validated(folder: Path, tests: dict[str, list[float]], seeds: int = 1, **more: Any) -> Comparison:
    """Return the comparison of strategies with a test accuracy a fold; each fold has 20 test images of its own."""
    for strategy, accuracies in tests.items():
        for fold, test in enumerate(accuracies):
            for seed in range(seeds):
                fabricate_run(
                    folder, f"{strategy}-{fold}-{seed}-{more.get('lr', 0)}", strategy=strategy, folds=5, fold=fold,
                    seed=seed, **{"val": test, **more}, test=test, predictions=answers(fold, test),
                    provenance={"splits": {"train": 60, "val": 20, "test": 20}},
                )  # fmt: skip
    return compare(read_arms(folder))


def test_folds_are_one_recipe_and_its_interval_counts_the_pictures_of_all(tmp_path: Path) -> None:
    """Five folds of 20 images are 100 images, each tested once, or twice with two seeds."""
    comparison = cross_validated(tmp_path, {"head": [0.8, 0.9, 0.7, 0.85, 0.75]}, seeds=2)
    (row,) = comparison.recipes.to_dict("records")
    assert (row["n"], row["seeds"], row["over"], row["test_pictures"]) == (10, 2, "2 seeds × 5 folds", 100)
    assert row["test_accuracy_mean"] == pytest.approx(0.8)
    low, high = tests.wilson(80, 100)
    assert row["interval"] == "folds"
    assert row["test_accuracy_low"] < 0.8 < row["test_accuracy_high"]
    # New training sets make it wider than images alone; 200 images would make it narrower by far.
    assert 1 < (row["test_accuracy_high"] - row["test_accuracy_low"]) / (high - low) < 3
    shown = columns.detail_columns(0.8)
    cells = columns.cells(comparison.recipes, shown)[0]
    assert cells[[column.heading for column in shown].index("Seeds")] == "2 seeds × 5 folds"


def test_a_test_set_that_all_folds_share_is_counted_once(tmp_path: Path) -> None:
    """Where the data comes with a test split, folds take turns at val."""
    for fold in range(3):
        same = [(f"test/{n}.png", "disc", "disc", 0.9) for n in range(20)]
        fabricate_run(tmp_path, f"head-{fold}", folds=3, fold=fold, predictions=same)
    assert compare(read_arms(tmp_path)).recipes["test_pictures"].tolist() == [20]


def test_the_verdict_speaks_of_folds(tmp_path: Path) -> None:
    """The corrected t test over the differences by fold; one fold is not enough."""

    def described(name: str, tests: dict[str, list[float]], seeds: int = 1) -> VerdictText:
        comparison = cross_validated(tmp_path / name, tests, seeds)
        return describe_verdict(comparison, decide(comparison))

    spread = [0.5, 0.55, 0.45, 0.5, 0.5]
    clear = described("a", {"head": spread, "full": [accuracy + 0.4 for accuracy in [*spread[:4], 0.45]]})
    assert clear.headline == "Use full: 89.0% on test (5 folds), significantly better than head."
    few = described("b", {"head": [0.5], "full": [0.9]})
    assert few.headline.startswith("No verdict yet")
    level = described("c", {"head": [0.8, 0.85, 0.8], "full": [0.85, 0.8, 0.8]}, seeds=2)
    assert "minus head is 0.0 points (-" in " ".join(level.sentences)


def test_folds_that_some_strategies_lack_are_told(tmp_path: Path) -> None:
    """A fold may be harder than another."""
    notes = cross_validated(tmp_path, {"head": [0.8] * 3, "full": [0.9] * 2}).notes
    told = "Not every arm has the same runs on every fold, and some folds may be harder: head 0, 1, 2; full 0, 1."
    assert told in notes
    assert not any("test images of another" in note for note in notes)  # there was nothing to choose


def test_choosing_on_folds_is_told(tmp_path: Path) -> None:
    """Two rates on the same folds: what is val in one fold is test in another."""
    cross_validated(tmp_path, {"head": [0.8] * 3}, lr=0.001)
    notes = cross_validated(tmp_path, {"head": [0.7] * 3}, lr=0.003).notes
    assert any("Val images of one fold are test images of another" in note for note in notes)
    assert not any("same runs on every fold" in note for note in notes)


def test_recipes_compete_on_the_folds_that_both_have(tmp_path: Path) -> None:
    """As with seeds: a third, easy fold does not make the first recipe the choice."""
    cross_validated(tmp_path, {"head": [0.7, 0.7, 1.0]}, lr=0.001)
    comparison = cross_validated(tmp_path, {"head": [0.75, 0.75]}, lr=0.003)
    assert comparison.arms["lr"].tolist() == [0.003]


def test_the_same_fold_twice_counts_once(tmp_path: Path) -> None:
    """Another fold of the same seed is another run."""
    for name, fold in (("a", 0), ("b", 1), ("c", 1)):
        fabricate_run(tmp_path, name, folds=2, fold=fold)
    sweep = read_arms(tmp_path)
    assert list(sweep.finished["run"]) == ["a", "b"]
    assert list(sweep.left_out["state"]) == ["repeated"]


def test_runs_of_earlier_versions_are_of_the_same_recipe(tmp_path: Path) -> None:
    """They had no such fields as balance and folds; another seed of today's version goes with them."""
    old = fabricate_run(tmp_path, "old", seed=0, summary={"test/recall": None, "test/min_recall": None})
    config = {name: value for name, value in files.read_config(old).items() if name not in FIELDS_ADDED_LATER}
    files.write_config(old, {k: v for k, v in config.items() if k != "provenance"}, config["provenance"])
    fabricate_run(tmp_path, "new", seed=1)
    fabricate_run(tmp_path, "other", seed=0, balance="sampler")
    table = compare(read_arms(tmp_path)).recipes
    assert sorted(zip(table["arm"], table["over"], strict=True)) == [
        ("balance none", "2 seeds"),
        ("balance sampler", "1 seed"),
    ]
