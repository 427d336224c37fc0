"""What runs will take, worked out by hand on a machine whose pictures cost whole seconds."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import parse_config
from finetune.data.transforms import Preprocessing
from finetune.resolve import resolve
from finetune.sweep.forecast.model import (
    ADAM_BYTES,
    FLOAT_BYTES,
    SMALL_FILES_BYTES,
    START_SECONDS,
    PendingRun,
    Resources,
    simulate,
    wall_seconds,
)
from finetune.sweep.forecast.probe import ProbeResult
from finetune.sweep.forecast.report import SweepForecast

SIZES = {"train": 100, "val": 20, "test": 30}
TO = Preprocessing(256, 224, (0.5,) * 3, (0.5,) * 3, "bilinear")
SPEED = ProbeResult(
    device="cpu",
    blocks=4,
    parameters=1000,
    picture_bytes=50,
    decode=10.0,
    augment={"light": 1.0, "standard": 1.0, "strong": 4.0},
    crop=0.5,
    prefix={0: 0.0, 2: 3.0, 4: 5.0},
    evaluate={0: 6.0, 2: 2.0, 4: 0.125},
    train={0: 20.0, 2: 8.0, 4: 0.5},
    update={0: 2.0, 2: 1.0, 4: 0.25},
    trainable={0: 1000, 2: 600, 4: 10},
    row_bytes={0: 999, 2: 100, 4: 10},
    first_step=0.0,
    write=0.0,
)
MACHINE = Resources(agents=1, threads=1, cache_budget=10**9, free_bytes=10**9)
DECODED = frozenset(SIZES)


def ahead(name: str = "a", *, speed: ProbeResult = SPEED, **values: Any) -> PendingRun:
    """Return a run of two epochs whose pictures are in the cache already, and which keeps one view of each."""
    given = {"data": "somewhere", "epochs": 2, "batch_size": 50, "views": 1, **values}
    more = {key: given.pop(key) for key in ("sizes", "decoded", "workers", "epochs_done") if key in given}
    config = resolve(parse_config(given, "here"))
    return PendingRun(name, config, **{"sizes": SIZES, "to": TO, "speed": speed, "decoded": DECODED, **more})


def seconds(*runs: PendingRun, machine: Resources = MACHINE) -> list[float]:
    """Return the seconds of each run, without its start."""
    named = [dataclasses.replace(run, id=str(number)) for number, run in enumerate(runs)]
    return [total - START_SECONDS for total in simulate(named, machine).run_seconds.values()]


HALF = {"strategy": "partial", "unfreeze": [[0, 0.5]]}
FULL = 2 * (100 * (1 + 20) + 2 * 2 + 20 * (0.5 + 6)) + 30 * (0.5 + 6)
HEAD = 2 * (100 * 0.5 + 2 * 0.25 + 20 * 0.125) + 30 * 0.125  # after the cut
HEAD_CACHE = 100 * (1 + 5) + 20 * (0.5 + 5)  # one view, val
HEAD_TEST = 30 * (0.5 + 5)


def test_a_run_that_trains_everything_pays_for_all_of_it() -> None:
    """Loading, forward and backward for each picture, the optimiser for each step, val for each epoch, test once."""
    assert seconds(ahead(strategy="full")) == [pytest.approx(FULL)]
    decoding = (100 + 20 + 30) * 10
    assert seconds(ahead(strategy="full", decoded=frozenset())) == [pytest.approx(FULL + decoding)]
    two_threads = seconds(ahead(strategy="full", decoded=frozenset()), machine=MACHINE._replace(threads=2))
    assert two_threads == [pytest.approx(FULL + decoding / 2)]
    assert seconds(*[ahead(strategy="full", decoded=frozenset())] * 2)[1] == pytest.approx(FULL)


def test_the_first_run_fills_the_cache_and_the_others_pay_for_what_comes_after_the_cut() -> None:
    """Whatever their seed and rate. What one run alone reads once, test, is not kept but costs the whole network."""
    assert seconds(ahead(strategy="head")) == [pytest.approx(HEAD - 30 * 0.125 + HEAD_CACHE + 30 * (0.5 + 6))]
    first, *others = seconds(*(ahead(strategy="head", seed=seed, lr=0.01 * (1 + seed)) for seed in range(3)))
    assert first == pytest.approx(HEAD + HEAD_CACHE + HEAD_TEST)
    assert others == [pytest.approx(HEAD)] * 2


def test_one_pass_fills_all_cuts_that_runs_need_of_a_view() -> None:
    """So a run whose own cut comes early pays for the deeper one, and the run that needs that finds it."""
    half = 2 * (100 * 8 + 2 * 1 + 20 * 2) + 30 * 2
    first, second = seconds(ahead(**HALF), ahead(strategy="head"))
    assert first == pytest.approx(half - 30 * 2 + HEAD_CACHE + 30 * (0.5 + 6))
    assert second == pytest.approx(HEAD - 30 * 0.125 + 30 * (0.5 + 6))


@pytest.mark.parametrize(
    "other", [{"data": "elsewhere"}, {"weights": "IMAGENET1K_V1"}, {"split_seed": 1}, {"image_px": 160}]
)
def test_runs_that_have_nothing_in_common_share_nothing(other: dict[str, Any]) -> None:
    """Other pictures, weights, splits, sizes."""
    alone = seconds(ahead(strategy="head"))[0]
    assert seconds(ahead(strategy="head"), ahead(strategy="head", **other)) == [pytest.approx(alone)] * 2


def test_runs_that_augment_otherwise_share_val_and_test() -> None:
    """But not what they train on."""
    first, second = seconds(ahead(strategy="head"), ahead(strategy="head", augment="none"))
    assert first == pytest.approx(HEAD + HEAD_CACHE + HEAD_TEST)
    assert second == pytest.approx(HEAD + 100 * (0.5 + 5))


def test_random_weights_are_each_seed_s_own() -> None:
    """What they make of the pictures is of no use to another seed."""
    runs = [ahead(strategy="head", weights="none", seed=seed) for seed in range(2)]
    assert seconds(*runs) == [pytest.approx(seconds(runs[0])[0])] * 2


def test_without_the_cache_every_epoch_pays_for_decoding_and_the_frozen_part() -> None:
    """With `cache: off`, and where there is no room; no room is told."""
    each = 100 * (10 + 1 + 5 + 0.5) + 2 * 0.25 + 20 * (10 + 0.5 + 6)
    test = 30 * (10 + 0.5 + 6)
    off = ahead(strategy="head", cache="off", decoded=frozenset())
    assert seconds(off, off) == [pytest.approx(2 * each + test)] * 2
    small = MACHINE._replace(cache_budget=0)
    runs = [ahead(name, strategy="head", decoded=frozenset()) for name in "ab"]
    assert seconds(*runs, machine=small) == [pytest.approx(2 * each + test)] * 2
    outlook = simulate(runs, small)
    assert (outlook.cache_bytes, outlook.refused_bytes) == (0, 150 * 50 + 150 * 10)
    assert outlook.cache_seconds == 0


def test_what_fits_is_kept_smallest_first() -> None:
    """A pass goes as deep as the cuts that there is room for."""
    runs = [ahead(name, **values) for name, values in {"a": HALF, "b": {"strategy": "head"}}.items()]
    outlook = simulate(runs, MACHINE._replace(cache_budget=100 * 10 + 20 * 10 + 20 * 100))
    assert outlook.cache_bytes == 100 * 10 + 20 * 10 + 20 * 100  # the half's views have no room
    assert outlook.refused_bytes == 100 * 100
    assert simulate(runs, MACHINE._replace(cache_budget=100 * 100 + 1)).refused_bytes == 100 * 100  # alone it would fit
    assert outlook.run_seconds["a"] > simulate(runs, MACHINE).run_seconds["a"]


def test_auto_keeps_what_is_used_twice_and_on_keeps_all() -> None:
    """Two views for two epochs are used once each; the time is the same either way."""
    outlooks = [simulate([ahead(strategy="head", views=2, cache=mode)], MACHINE) for mode in ("auto", "on")]
    assert [outlook.cache_bytes for outlook in outlooks] == [20 * 10, (2 * 100 + 20 + 30) * 10]
    auto, on = (outlook.seconds for outlook in outlooks)
    assert auto - on == pytest.approx(30 * (6 - 5 - 0.125))  # a test that is not kept goes through the whole network


def test_a_schedule_is_followed_from_epoch_to_epoch() -> None:
    """Half of the epochs at one cut, then everything; epochs that are done cost nothing."""
    frozen = 100 * (1 + 3 + 8) + 2 * 1 + 20 * (0.5 + 6)
    run = {"strategy": "gradual", "unfreeze": [[0, 0.5], [1, 1]]}
    everything = FULL / 2 + 30 * (0.5 + 6) / 2
    assert seconds(ahead(**run)) == [pytest.approx(frozen + everything)]
    assert seconds(ahead(**run, epochs_done=1)) == [pytest.approx(everything)]
    assert seconds(ahead(**run, epochs_done=2)) == [pytest.approx(30 * (0.5 + 6))]


def test_smaller_pictures_at_first_cost_by_the_pixel() -> None:
    """Two of four epochs at half the side, and one between; loading costs what it did."""
    px = (112, 152, 184, 224)
    expected = sum(100 * (1 + 20 * (side / 224) ** 2) + 2 * 2 + 20 * 6.5 for side in px) + 30 * 6.5
    assert seconds(ahead(strategy="full", epochs=4, start_px=112)) == [pytest.approx(expected)]


def test_loader_processes_work_beside_the_network() -> None:
    """An epoch takes as long as the slower of the two."""
    slow = dataclasses.replace(SPEED, augment={"standard": 50.0})
    two = seconds(ahead(strategy="full", speed=slow, workers=2))[0]
    four = seconds(ahead(strategy="full", speed=slow, workers=4))[0]
    assert two - four == pytest.approx(2 * 100 * (25 - 20))


def test_starting_and_saving_take_their_time() -> None:
    """The first step of a process, and after each epoch two checkpoints with what the optimiser keeps of the rest."""
    speed = dataclasses.replace(SPEED, first_step=0.5, write=0.001)
    saved = 2 * FLOAT_BYTES * 1000 + ADAM_BYTES * 1000
    assert seconds(ahead(strategy="full", speed=speed)) == [pytest.approx(FULL + 50 * 0.5 + 2 * saved * 0.001)]


def test_disk_and_time_are_added_up_over_the_sweep() -> None:
    """What runs leave, and for each agent an optimiser's state and a last.pt in the making; time by strategy."""
    runs = [ahead(name, strategy=strategy) for name, strategy in {"a": "full", "b": "full", "c": "head"}.items()]
    outlook = simulate(runs, MACHINE._replace(agents=2, threads=3))
    assert isinstance(outlook, SweepForecast)
    assert (outlook.runs, outlook.agents, outlook.threads, outlook.device, outlook.most) == (3, 2, 3, "cpu", False)
    left, saved = 3 * (2 * FLOAT_BYTES * 1000 + SMALL_FILES_BYTES), 2 * (FLOAT_BYTES + 2 * ADAM_BYTES) * 1000
    assert outlook.run_bytes == left + saved
    full = outlook.strategies["full"]
    assert (full.runs, full.seconds) == (2, pytest.approx(2 * (FULL + START_SECONDS)))
    assert full.epoch_seconds == pytest.approx(full.seconds / 4)
    assert outlook.seconds == pytest.approx(wall_seconds(list(outlook.run_seconds.values()), 2))
    assert outlook.cache_seconds == pytest.approx(HEAD_CACHE)


@pytest.mark.parametrize(
    ("keep", "left", "beside"), [("best_last", 2, 0), ("best", 1, 1), ("none", 0, 2), ("every", 4, 0)]
)
def test_the_disk_depends_on_which_weights_are_kept(keep: str, left: int, beside: int) -> None:
    """What stays of each run of two epochs; and what one under way needs all the same, best.pt and last.pt."""
    runs = [ahead(name, strategy="full", keep=keep, seed=seed) for seed, name in enumerate("abc")]
    found = simulate(runs, MACHINE).run_bytes - 3 * SMALL_FILES_BYTES
    assert found == (3 * left + beside + 1) * FLOAT_BYTES * 1000 + 2 * ADAM_BYTES * 1000


def test_runs_that_may_end_early_make_it_the_most_they_take() -> None:
    """By patience, or by the sweep's early stopping."""
    assert simulate([ahead(strategy="full", patience=1)], MACHINE).most
    assert simulate([ahead(strategy="full")], MACHINE, stops_early=True).most


def test_runs_yet_to_be_chosen_count_but_are_not_named() -> None:
    """As draws of the search's space stand for them."""
    outlook = simulate([ahead("a", strategy="full"), ahead("draw", strategy="full")], MACHINE, unknown=1)
    assert list(outlook.run_seconds) == ["a"]
    assert (outlook.runs, outlook.unknown) == (2, 1)
    assert outlook.seconds == pytest.approx(2 * (FULL + START_SECONDS))


def test_the_next_run_starts_when_an_agent_is_free() -> None:
    """Three of 3, 2 and 2 s end after 4 s in two slots, and the order counts."""
    assert wall_seconds([3, 2, 2], 2) == 4
    assert wall_seconds([2, 2, 3], 2) == 5
    assert wall_seconds([], 2) == 0


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=30), st.integers(1, 8))
def test_the_wall_time_lies_between_perfect_sharing_and_none(times: list[float], agents: int) -> None:
    """Never below the longest run or an equal share, and at most a longest run above that."""
    wall = wall_seconds(times, agents)
    least = max(max(times), sum(times) / agents)
    assert least - 1e-6 <= wall <= sum(times) / agents + max(times) + 1e-6


def test_each_level_of_augmentation_has_its_cost() -> None:
    """Three seconds a picture more for strong than for standard, in each epoch; none costs what evaluation does."""
    none, standard, strong = (
        seconds(ahead(strategy="full", augment=level))[0] for level in ("none", "standard", "strong")
    )
    assert strong - standard == pytest.approx(2 * 100 * 3.0)
    assert standard - none == pytest.approx(2 * 100 * 0.5)
