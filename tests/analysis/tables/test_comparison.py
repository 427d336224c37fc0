"""The comparison: val chooses, test is read once, and every number can be worked out on paper."""

import csv
import itertools
import json
import math
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import formatting
from analysis.report import columns, csv_files, markdown
from analysis.report.sentences import describe_verdict
from analysis.sources.sweep import Sweep
from analysis.stats import tests
from analysis.stats.crossed import Estimate, wilson_interval
from analysis.tables import comparison, schema
from analysis.tables.recipes import distinguishing_labels, format_schedule
from analysis.tables.selection import choose_recipes
from analysis.tables.verdict import decide
from finetune.rundir.keys import PLAN
from finetune.system.documents import write_json
from tests.support.fabricate import fabricate_run, read_arms

ALL_COLUMNS = [*columns.comparison_columns(), *columns.detail_columns(0.8)]


def made(folder: Path, *runs: dict[str, object]) -> Sweep:
    """Return a sweep of these runs; each is what differs from the default."""
    for number, run in enumerate(runs):
        fabricate_run(folder, f"r{number}", **run)  # type: ignore[arg-type]
    return read_arms(folder)


def compared(folder: Path, *runs: dict[str, object]) -> comparison.Comparison:
    return comparison.compare(made(folder, *runs))


def test_val_chooses_the_recipe_even_where_another_has_a_better_test(tmp_path: Path) -> None:
    """Choosing by test would report 0.95 here."""
    chosen = compared(
        tmp_path,
        {"lr": 0.001, "seed": 0, "val": 0.80, "test": 0.70},
        {"lr": 0.001, "seed": 1, "val": 0.90, "test": 0.80},
        {"lr": 0.003, "seed": 0, "val": 0.84, "test": 0.95},
        {"lr": 0.003, "seed": 1, "val": 0.84, "test": 0.95},
    ).arms
    row = chosen.iloc[0]
    assert (row["lr"], row["seeds"], row["runs"], row["recipes"]) == (0.001, 2, 4, 2)
    assert row["val_accuracy_mean"] == pytest.approx(0.85)
    assert row["test_accuracy_mean"] == pytest.approx(0.75)
    assert row["test_accuracy_sd"] == pytest.approx(0.1 / 2**0.5)  # of 0.7 and 0.8, divided by n - 1


def test_a_recipe_that_lost_a_seed_can_not_win_by_luck(tmp_path: Path) -> None:
    """Its good seed is compared with the same seed of the other; one more seed does not make the other the choice."""
    comparison = compared(
        tmp_path,
        *({"lr": 0.001, "seed": seed, "val": val} for seed, val in enumerate((0.9, 0.5, 0.5))),
        {"lr": 0.003, "seed": 0, "val": 0.89},
        {"lr": 0.003, "seed": 1, "state": "failed", "reason": "loss is not finite"},
    )
    assert comparison.arms["lr"].tolist() == [0.001]
    assert comparison.recipes["chosen"].tolist() == [True, False]


def test_a_recipe_with_other_seeds_than_the_rest_does_not_compete(tmp_path: Path) -> None:
    """There is no run of it to compare with; a note says so."""
    comparison = compared(
        tmp_path,
        *({"lr": lr, "seed": seed, "val": 0.8} for lr in (0.001, 0.002) for seed in range(2)),
        {"lr": 0.003, "seed": 7, "val": 0.99},
    )
    assert comparison.arms["lr"].tolist() == [0.001]
    assert any("lr 0.003 (1)" in note for note in comparison.notes)


def test_ties_go_to_the_lower_val_loss(tmp_path: Path) -> None:
    """Equal val accuracies are common on a small val split."""
    comparison = compared(
        tmp_path,
        {"lr": 0.001, "val": 0.8, "summary": {"best/val_loss": 0.9}},
        {"lr": 0.003, "val": 0.8, "summary": {"best/val_loss": 0.5}},
    )
    assert comparison.arms["lr"].tolist() == [0.003]


def test_strategies_stand_in_their_order_and_savings_are_against_full(tmp_path: Path) -> None:
    """Seconds are measured against the row of full, compute against each run's own full_gflops."""
    runs = [("full", 200.0), ("head", 50.0), ("scratch", 220.0), ("gradual", 150.0), ("partial", 80.0)]
    table = compared(tmp_path, *({"strategy": name, "seconds": seconds} for name, seconds in runs)).arms
    assert table["strategy"].tolist() == ["scratch", "head", "partial", "gradual", "full"]
    assert table["time_saved"].tolist() == pytest.approx([-0.1, 0.75, 0.6, 0.25, 0.0])
    assert table["compute_saved"].tolist() == pytest.approx([0.0, 0.65, 0.55, 0.25, 0.0])


def test_without_full_nothing_is_measured_as_saved(tmp_path: Path) -> None:
    """The computed saving stands; the measured one is a dash."""
    comparison = compared(tmp_path, {"strategy": "head"})
    cells = dict(
        zip(
            [column.heading for column in ALL_COLUMNS],
            columns.cells(comparison.arms, ALL_COLUMNS)[0],
            strict=True,
        )
    )
    assert (cells["Time saved"], cells["Compute saved"]) == (formatting.NONE, "65%")


def test_one_seed_has_an_interval_and_no_spread(tmp_path: Path) -> None:
    """A deviation of 0 over one seed would be a lie. Wilson for 87 of 100 is 79.0 to 92.2 (worked out by hand)."""
    comparison = compared(tmp_path, {"test": 0.87})
    row = comparison.arms.iloc[0]
    assert np.isnan(row["test_accuracy_sd"])
    cells = columns.cells(comparison.arms, ALL_COLUMNS)[0]
    assert cells[3] == "79.0–92.2%"
    assert "± 0.0" not in cells


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        (([0.1, 0.2], [0.1, 0.2]), "never"),
        (([0.1, 0.8], [0.8, 0.9]), "1.5"),
        (([0.1, 0.8], [0.1, 0.2]), "1 of 2 seeds"),
        (([0.1, 0.8], [0.9, 0.9], [0.1, 0.2]), "2 (2 of 3 seeds)"),
    ],
)
def test_a_run_that_never_reached_the_target_is_not_forgotten(
    tmp_path: Path, curves: tuple[list[float], ...], said: str
) -> None:
    """The median counts such a run as later than all others; it is not left out of the mean."""
    comparison = compared(tmp_path, *({"seed": seed, "curve": curve} for seed, curve in enumerate(curves)))
    column = next(column for column in ALL_COLUMNS if column.heading.startswith("Epochs to"))
    assert columns.cells(comparison.arms, [column]) == [[said]]


def test_another_target_is_read_from_the_history(tmp_path: Path) -> None:
    """50% is reached in epoch 3 of 0.2, 0.4, 0.6, 0.8."""
    sweep = made(tmp_path, {"val": 0.8})
    assert comparison.compare(sweep, target=0.5).arms["epochs_to_target_median"].tolist() == [3]


def test_the_table_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    """Frames are sets of rows."""
    sweep = made(
        tmp_path,
        *(
            {"strategy": strategy, "lr": lr, "seed": seed, "val": 0.5 + seed / 7 + lr, "test": 0.6 + seed / 9}
            for strategy, lr, seed in itertools.product(("head", "full"), (0.001, 0.003), range(3))
        ),
    )
    turned = Sweep(sweep.name, sweep.folder, sweep.runs.iloc[::-1], sweep.epochs.iloc[::-1], sweep.notes, None)
    for table in ("arms", "recipes"):
        pd.testing.assert_frame_equal(
            getattr(comparison.compare(sweep), table), getattr(comparison.compare(turned), table)
        )


def test_a_strategy_without_a_finished_run_is_named(tmp_path: Path) -> None:
    """A row that is not there is easily overlooked."""
    comparison = compared(tmp_path, {"strategy": "head"}, {"strategy": "full", "state": "failed", "reason": "x"})
    assert "full is not in the table: none of its 1 runs is finished." in comparison.notes


def test_recipes_that_differ_in_more_than_their_strategy_are_named(tmp_path: Path) -> None:
    """Eight epochs against four is no comparison of strategies."""
    comparison = compared(tmp_path, {"strategy": "head"}, {"strategy": "full", "epochs": 8})
    assert any("epochs (head 4, full 8)" in note for note in comparison.notes)


def test_csv_holds_fractions_and_no_formulas(tmp_path: Path) -> None:
    """A spreadsheet runs a cell that begins with an equals sign; numbers, negative ones too, stay numbers."""
    comparison = compared(tmp_path, {"strategy": "scratch", "seconds": 110.0}, {"strategy": "full", "seconds": 100.0})
    table = comparison.arms.assign(recipe="=1+1")
    csv_files.write_records(tmp_path / "out.csv", schema.COLUMNS, csv_files.records(table))
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert list(rows[0]) == list(schema.COLUMNS)
    assert rows[0]["recipe"] == "'=1+1"
    assert float(rows[0]["time_saved"]) == pytest.approx(-0.1)
    assert (rows[0]["test_accuracy_mean"], rows[0]["test_accuracy_sd"]) == ("0.8", "")
    assert rows[0]["trainable_parameters"] == "20001000"


def test_markdown_has_a_row_a_strategy_and_keeps_names_in_their_cells(tmp_path: Path) -> None:
    """A vertical bar in a name must not end the cell."""
    table = compared(tmp_path, {"strategy": "head"}, {"strategy": "full"}).arms.assign(recipe="a|b")
    lines = markdown.markdown_table(table, columns.comparison_columns()).splitlines()
    assert len(lines) == 4
    assert "a\\|b" in lines[2]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(columns.comparison_columns()) + 1}


def test_a_recipe_is_named_by_what_tells_it_apart() -> None:
    """The rate is always named; what follows from it, or is the same everywhere, is not."""
    recipes = [
        {"strategy": "partial", "lr": lr, "backbone_lr": lr / 5, "epochs": 8, "unfreeze": [[0, share]]}
        for lr, share in ((0.001, 0.25), (0.001, 0.5), (0.003, 0.5))
    ]
    assert list(distinguishing_labels({json.dumps(recipe): "partial" for recipe in recipes}).values()) == [
        "lr 0.001, unfreeze 25%",
        "lr 0.001, unfreeze 50%",
        "lr 0.003, unfreeze 50%",
    ]


def test_a_schedule_reads_in_epochs_as_people_count_them() -> None:
    """After two finished epochs comes epoch 3."""
    assert format_schedule([[0, 0.0], [2, 1 / 3], [4, 1.0]]) == "0%, 33% from epoch 3, 100% from epoch 5"


def test_every_strategy_has_exactly_one_chosen_recipe(tmp_path: Path) -> None:
    """Not a number among the val losses must not lose a strategy."""
    sweep = made(
        tmp_path,
        {"strategy": "head", "summary": {"best/val_loss": None}},
        {"strategy": "full", "lr": 0.001},
        {"strategy": "full", "lr": 0.003},
    )
    table, _ = choose_recipes(sweep.finished)
    assert table.groupby("strategy")["chosen"].sum().to_dict() == {"full": 1, "head": 1}


def test_what_a_race_left_out_is_said_once(tmp_path: Path) -> None:
    """And that the rest can be had."""
    runs: list[dict[str, object]] = []
    for strategy in ("head", "full"):
        runs += [{"strategy": strategy, "lr": 0.001, "seed": 0, "val": 0.7}]
        runs += [
            {"strategy": strategy, "lr": 0.003, "seed": seed, "val": 0.8, "test": test}
            for seed, test in enumerate((0.9, 0.7, 0.7))
        ]
    sweep = made(tmp_path, *runs)
    write_json(sweep.folder / PLAN, {"runs": [], "race": True})
    notes = comparison.compare(read_arms(sweep.folder)).notes
    assert len([note for note in notes if "A race" in note]) == 1
    assert "head lr 0.001; full lr 0.001. " in notes[0]
    assert "--no-race" in notes[0]


def test_a_race_reports_the_seeds_that_did_not_choose_the_recipe(tmp_path: Path) -> None:
    """The first seed was lucky: 90%, then 70% and 70%. Only one recipe was tried of full, so nothing was chosen."""
    runs: list[dict[str, object]] = [{"strategy": "head", "lr": 0.001, "val": 0.7}]
    for strategy in ("head", "full"):
        runs += [
            {"strategy": strategy, "lr": 0.003, "seed": seed, "test": test} for seed, test in enumerate((0.9, 0.7, 0.7))
        ]
    sweep = made(tmp_path, *runs)
    write_json(sweep.folder / PLAN, {"runs": [], "race": True})
    table = comparison.compare(read_arms(sweep.folder)).arms.set_index("arm")
    assert table["n_tested"].to_dict() == {"head": 2, "full": 3}
    assert table["test_accuracy_mean"].to_dict() == pytest.approx({"head": 0.7, "full": 2.3 / 3})


@given(st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_wilson_interval_contains_its_proportion(counts: tuple[int, int]) -> None:
    """And stays inside [0, 1], at the ends too."""
    low, high = tests.wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 500))
def test_the_interval_over_seeds_contains_the_mean(accuracies: list[float], pictures: int) -> None:
    """Rounding the mean to whole images does not push it out."""
    mean = fmean(accuracies)
    se = (mean * (1 - mean) / pictures) ** 0.5
    low, high = wilson_interval(Estimate(mean, se, math.inf), pictures)
    assert -1e-12 <= low - 1e-12 <= mean <= high + 1e-12 <= 1 + 1e-9


def test_more_seeds_on_the_same_pictures_do_not_narrow_the_interval(tmp_path: Path) -> None:
    """Three runs that agree on 100 images are not 300 independent trials: it is Wilson's interval of one run."""
    row = compared(tmp_path, *({"seed": seed, "test": 0.8} for seed in range(3))).arms.iloc[0]
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == pytest.approx(tests.wilson(80, 100), abs=1e-3)


def of_seeds(strategy: str, tests: list[float], **more: object) -> list[dict[str, object]]:
    return [{"strategy": strategy, "seed": seed, "test": test, **more} for seed, test in enumerate(tests)]


def test_single_runs_get_no_verdict(tmp_path: Path) -> None:
    """However large the lead, and the sentence says how many are needed."""
    comparison = compared(tmp_path, *of_seeds("head", [0.2], val=0.2), *of_seeds("full", [0.9], val=0.9))
    result = decide(comparison)
    assert (result.status, result.candidate) == ("too few seeds", "full")
    headline = describe_verdict(comparison, result).headline
    assert headline.startswith("No verdict yet: full is ahead on val (90.0%; 90.0% on test)")
    assert "at least 2 runs of each" in headline


def test_an_arm_within_the_margin_is_recommended_if_it_is_cheaper(tmp_path: Path) -> None:
    """2,000 test images: 88.0 and 87.9% are within 2 points of each other, 85% is not."""
    many = {"provenance": {"splits": {"test": 20_000}}}
    comparison = compared(
        tmp_path,
        *of_seeds("partial", [0.879, 0.879, 0.88], val=0.879, seconds=60.0, **many),
        *of_seeds("gradual", [0.85, 0.85, 0.85], val=0.85, seconds=30.0, **many),
        *of_seeds("full", [0.88, 0.88, 0.88], val=0.88, seconds=100.0, **many),
    )
    result, text = decide(comparison), describe_verdict(comparison, decide(comparison))
    assert (result.candidate, result.recommended) == ("full", "partial")
    assert text.headline.startswith("Use partial: 60 s a run instead of 100 s; at most 0.")
    assert text.headline.endswith("points less accurate than full (95% confidence).")
    assert [other.arm for other in result.alternatives] == ["gradual"]
    assert (
        "If time matters: gradual takes 30 s instead of 100 s a run and measured 3 points lower than full"
        in " ".join(text.sentences)
    )
    assert decide(comparison, margin=0.001).recommended == "full"
    assert decide(comparison, margin=0.1).recommended == "gradual"


def test_filling_caches_is_told_apart_from_what_a_recipe_takes(tmp_path: Path) -> None:
    """The first of three runs filled the caches for all: 60 s of its 70; a trifle is not mentioned."""
    first = {"train_seconds": 70.0, "cache_seconds": 60.0}
    comparison = compared(
        tmp_path,
        {"strategy": "head", "seed": 0, "seconds": 70.0, "summary": first},
        *({"strategy": "head", "seed": seed, "seconds": 10.0} for seed in (1, 2)),
        {"strategy": "full", "seconds": 101.0, "summary": {"cache_seconds": 1.0}},
        {"strategy": "scratch", "seconds": 100.0, "summary": {"cache_seconds": None}},  # of a run that does not tell
    )
    spent = {row["strategy"]: formatting.train_time_text(row) for _, row in comparison.arms.iterrows()}
    assert spent == {"head": "10 s + 20 s cache", "full": "100 s", "scratch": "100 s"}
    assert comparison.arms.set_index("strategy")["time_saved"]["head"] == pytest.approx(1 - 30 / 101)


def test_seeds_that_disagree_are_not_distinguishable_however_many_pictures(tmp_path: Path) -> None:
    """With 100,000 images the intervals are narrow for each run, and the seeds still disagree."""
    many = {"provenance": {"splits": {"test": 100_000}}}
    comparison = compared(
        tmp_path,
        *of_seeds("head", [0.6, 0.7, 0.8], val=0.7, **many),
        *of_seeds("full", [0.7, 0.8, 0.9], val=0.8, **many),
    )
    result = decide(comparison)
    assert (result.status, result.level) == ("not distinguishable", ("head",))
    assert any("head minus full is -10.0 points" in text for text in describe_verdict(comparison, result).sentences)


def test_a_clear_lead_is_a_verdict(tmp_path: Path) -> None:
    """Three runs of each, and the same on val."""
    comparison = compared(
        tmp_path, *of_seeds("head", [0.5, 0.52, 0.54], val=0.5), *of_seeds("full", [0.9, 0.91, 0.92], val=0.9)
    )
    result = decide(comparison)
    assert (result.status, result.level) == ("distinguishable", ())
    assert (
        describe_verdict(comparison, result).headline
        == "Use full: 91.0% on test (3 seeds), significantly better than head."
    )


def test_test_accuracy_does_not_choose_the_candidate(tmp_path: Path) -> None:
    """Head is far ahead on test; val prefers full, and the sentence says that they disagree."""
    comparison = compared(
        tmp_path, *of_seeds("head", [0.9] * 3, val=0.7), *of_seeds("full", [0.5] * 3, val=0.8, seconds=10.0)
    )
    result = decide(comparison)
    assert result.candidate == "full"
    headline = describe_verdict(comparison, result).headline
    assert headline.startswith(
        "Val and test disagree: val prefers full (50.0% on test, 3 seeds), but head is significantly"
    )


def test_an_unknown_test_set_gives_no_interval_and_no_verdict(tmp_path: Path) -> None:
    """Without the number of images nothing says how sure an accuracy is."""
    unknown = {"provenance": {"splits": None}}
    comparison = compared(tmp_path, *of_seeds("head", [0.1] * 3, **unknown), *of_seeds("full", [0.9] * 3, **unknown))
    assert comparison.arms["test_accuracy_low"].isna().all()
    assert decide(comparison).status == "too few seeds"


def test_one_strategy_is_compared_with_nothing(tmp_path: Path) -> None:
    """No verdict where there is one row."""
    assert decide(compared(tmp_path, {"strategy": "head"})).status == "nothing to compare"


def test_a_narrow_terminal_gets_the_columns_it_has_room_for(tmp_path: Path) -> None:
    """Strategy and test accuracy always, more with more room, never a number cut in two."""
    table = compared(tmp_path, {"strategy": "head"}, {"strategy": "full"}).arms
    fewer: set[str] = set()
    for width in (40, 80, 100, 240):
        shown = columns.columns_that_fit(table, width)
        headings = {column.heading for column in shown}
        assert {"Arm", "Test"} <= headings
        assert fewer <= headings
        fewer = headings
        widths = [max(map(len, texts)) for texts in zip(*columns.cells(table, shown), strict=True)]
        assert sum(widths) + 3 * len(widths) + 1 <= width
    assert len(fewer) == len(columns.comparison_columns())


@pytest.mark.parametrize(("share", "text"), [(0.871, "87%"), (-0.004, "0%"), (-0.06, "-6%"), (float("nan"), "–")])
def test_nothing_is_not_less_than_nothing(share: float, text: str) -> None:
    """A share that rounds to nothing has no sign."""
    assert formatting.percent(share, 0) == text
