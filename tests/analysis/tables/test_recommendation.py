"""The recommendation: what to use, what it costs, how sure that is, and what more time would buy."""

from pathlib import Path

from analysis.report.sentences import budget_options, recommendation_facts
from analysis.sources.run_directories import read_sweep
from analysis.tables.comparison import Comparison, compare
from analysis.tables.verdict import decide
from tests.support.fabricate import fabricate_run

DATA = {"splits": {"train": 300}, "classes": ["disc", "square"]}


def sweep_of(folder: Path, wrong: dict[str, range], seconds: dict[str, float], seeds: int = 3) -> Comparison:
    """Return the comparison of strategies on 100 images, of which all seeds' runs name these wrongly."""
    for strategy, missed in wrong.items():
        answers = [(f"{n}.png", "disc", "square" if n in missed else "disc", 0.9) for n in range(100)]
        for seed in range(seeds):
            fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=0.9, test=1 - len(missed) / 100,
                predictions=answers, seconds=seconds[strategy], summary={"peak_memory_mb": 1500},
            )  # fmt: skip
    return compare(read_sweep(folder))


def test_of_equals_the_quickest_is_recommended(tmp_path: Path) -> None:
    """Full is one image ahead and takes three times as long: use partial, and it is said that they are level."""
    comparison = sweep_of(tmp_path, {"partial": range(13), "full": range(12)}, {"partial": 50.0, "full": 150.0})
    facts = recommendation_facts(comparison, decide(comparison), DATA)
    assert facts["Use"].startswith("partial, ")
    assert facts["It reaches"].startswith("87.0% of test images correct (")
    assert facts["It costs"] == "50 s per run, 67% less than full; 1.5 GB of memory"
    assert facts["How sure"] == "not distinguishable from full, and the fastest of them"
    assert facts["For data like"] == "300 training images of 2 classes"


def test_a_clear_winner_is_recommended_whatever_it_costs(tmp_path: Path) -> None:
    """The card then says what it is better than."""
    comparison = sweep_of(tmp_path, {"head": range(30), "full": range(8)}, {"head": 5.0, "full": 150.0})
    facts = recommendation_facts(comparison, decide(comparison), DATA)
    assert facts["Use"].startswith("full, ")
    assert facts["How sure"] == "significantly better than every other tested strategy"


def test_too_few_seeds_recommend_nothing(tmp_path: Path) -> None:
    """The best so far is named as that."""
    comparison = sweep_of(tmp_path, {"head": range(30), "full": range(8)}, {"head": 5.0, "full": 150.0}, seeds=2)
    facts = recommendation_facts(comparison, decide(comparison), DATA)
    assert "Use" not in facts
    assert facts["Ahead so far"].startswith("full, ")
    assert facts["How sure"] == "low: too few seeds for a test"


def test_more_time_is_worth_what_it_buys(tmp_path: Path) -> None:
    """Head for 5 s, partial for 50; full is slower than partial and worse: no budget is one for it."""
    wrong = {"head": range(30), "partial": range(8), "full": range(9)}
    comparison = sweep_of(tmp_path, wrong, {"head": 5.0, "partial": 50.0, "full": 150.0})
    head, partial = budget_options(comparison)
    assert (head.strategy, head.accuracy, head.gain) == ("head", "70.0%", "")
    assert (partial.strategy, partial.budget) == ("partial", "50 s")
    assert partial.gain.startswith("+22.0 points over head (95% interval ")
    assert "not significant" not in partial.gain


def test_a_gain_that_may_be_chance_is_called_that(tmp_path: Path) -> None:
    """One image of a hundred."""
    comparison = sweep_of(tmp_path, {"head": range(9), "full": range(8)}, {"head": 5.0, "full": 150.0})
    assert budget_options(comparison)[1].gain.endswith(", not significant)")
