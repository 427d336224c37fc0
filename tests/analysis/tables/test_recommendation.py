"""The recommendation: what to use, what it costs, how sure that is, and what more time would buy."""

import re
from pathlib import Path

from analysis.report.sentences import budget_options, recommendation_facts
from analysis.tables.comparison import Comparison, compare
from analysis.tables.verdict import decide
from tests.support.fabricate import fabricate_run, read_arms

ORIGIN = {"device": ["cpu"], "finished": ["2026-01-02"]}
DATA = {"splits": {"train": 300}, "classes": ["disc", "square"]}


def sweep_of(folder: Path, wrong: dict[str, range], seconds: dict[str, float], seeds: int = 3) -> Comparison:
    """Return the comparison of strategies on 100 images, of which all seeds' runs name these wrongly."""
    for strategy, missed in wrong.items():
        answers = [(f"{n}.png", "disc", "square" if n in missed else "disc", 0.9) for n in range(100)]
        for seed in range(seeds):
            fabricate_run(
                folder, f"{strategy}-{seed}", strategy=strategy, seed=seed, val=1 - len(missed) / 100,
                test=1 - len(missed) / 100, predictions=answers, seconds=seconds[strategy],
                summary={"peak_memory_mb": 1500},
            )  # fmt: skip
    return compare(read_arms(folder))


def test_a_cheaper_arm_within_the_margin_is_recommended(tmp_path: Path) -> None:
    """Full is one image of 100 ahead and takes three times as long; a loss of 5 points is accepted."""
    comparison = sweep_of(tmp_path, {"partial": range(13), "full": range(12)}, {"partial": 50.0, "full": 150.0})
    facts = recommendation_facts(comparison, decide(comparison, margin=0.05), DATA, ORIGIN)
    assert facts["Use"].startswith("partial, ")
    assert facts["Test accuracy"].startswith("87.0% (")
    assert facts["Cost"] == "50 s per run, 67% less than full; 1.5 GB of memory"
    assert re.fullmatch(r"95% that it loses at most [234]\.\d points against full", facts["Confidence"])
    assert facts["Margin"] == "5 points: a smaller loss is accepted for a lower cost"
    assert facts["For data like"] == "300 training images of 2 classes"
    assert facts["Measured on"] == "cpu; 2026-01-02"


def test_an_arm_that_is_not_shown_to_be_as_good_is_not_recommended(tmp_path: Path) -> None:
    """The same with 2 points: 100 images can't show that, and a difference that is not significant is no proof."""
    comparison = sweep_of(tmp_path, {"partial": range(13), "full": range(12)}, {"partial": 50.0, "full": 150.0})
    verdict = decide(comparison)
    assert (verdict.recommended, verdict.level) == ("full", ("partial",))
    facts = recommendation_facts(comparison, verdict, DATA, ORIGIN)
    assert facts["Confidence"] == "highest val accuracy; not significantly different from partial"


def test_a_clear_winner_is_recommended_whatever_it_costs(tmp_path: Path) -> None:
    """The page then says what it is better than."""
    comparison = sweep_of(tmp_path, {"head": range(30), "full": range(8)}, {"head": 5.0, "full": 150.0})
    facts = recommendation_facts(comparison, decide(comparison), DATA, ORIGIN)
    assert facts["Use"].startswith("full, ")
    assert facts["Confidence"] == "better than every other arm (p < 0.05, corrected for 1 comparison)"


def test_single_runs_recommend_nothing(tmp_path: Path) -> None:
    """The best so far is named as that."""
    comparison = sweep_of(tmp_path, {"head": range(30), "full": range(8)}, {"head": 5.0, "full": 150.0}, seeds=1)
    facts = recommendation_facts(comparison, decide(comparison), DATA, ORIGIN)
    assert "Use" not in facts
    assert facts["Ahead so far"].startswith("full, ")
    assert facts["Confidence"] == "low: single runs can't be tested"


def test_more_time_is_worth_what_it_buys(tmp_path: Path) -> None:
    """Head for 5 s, partial for 50; full is slower than partial and worse: no budget is one for it."""
    wrong = {"head": range(30), "partial": range(8), "full": range(9)}
    comparison = sweep_of(tmp_path, wrong, {"head": 5.0, "partial": 50.0, "full": 150.0})
    head, partial = budget_options(comparison)
    assert (head.strategy, head.accuracy, head.gain) == ("head", "70.0%", "")
    assert (partial.strategy, partial.budget) == ("partial", "50 s")
    assert partial.gain.startswith("+22.0 points over head (95% interval ")
