"""What runs will take, worked out by hand on a machine whose images cost whole seconds."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import parse_config
from finetune.resolve import resolve
from finetune.sweep.forecast import model
from finetune.sweep.forecast.model import ADAM_BYTES, SMALL_FILES_BYTES, WEIGHT_BYTES, NetworkSize, PendingRun
from finetune.sweep.forecast.probe import ProbeResult

IMAGES = {"train": 100, "val": 20, "test": 30}
SPEED = ProbeResult(
    device="cpu",
    image_bytes=50,
    decode=10.0,
    load=1.0,
    prefix={0: 0.0, 2: 3.0, 4: 5.0},
    evaluate={0: 6.0, 2: 2.0, 4: 0.125},
    train={0: 20.0, 2: 8.0, 4: 0.5},
    update={0: 2.0, 2: 1.0, 4: 0.25},
)
NETWORK = NetworkSize(blocks=4, parameters=1000, row_bytes=(999, 999, 100, 99, 10))
DECODING = (100 + 20 + 30) * 10
HALF = {"strategy": "partial", "unfreeze": [[0, 0.5]]}
FULL = 2 * (100 * (1 + 20) + 2 * 2 + 20 * (1 + 6)) + 30 * (1 + 6)
HEAD = 2 * (100 * 0.5 + 2 * 0.25 + 20 * 0.125)  # after the cut, without test
HEAD_CACHE = 100 * (1 + 5) + 20 * (1 + 5)  # one view, val


@pytest.fixture(autouse=True)
def _free_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing and starting take no time."""
    monkeypatch.setattr(model, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(model, "START_SECONDS", 0.0)


def pending(speed: ProbeResult = SPEED, **values: Any) -> PendingRun:
    """Return a run of two epochs that uses one view of each image."""
    more = {key: values.pop(key) for key in ("images", "workers", "epochs_done", "epoch_seconds") if key in values}
    config = resolve(parse_config({"data": "somewhere", "epochs": 2, "batch_size": 50, "views": 1, **values}, "here"))
    return PendingRun(config, **{"images": IMAGES, "network": NETWORK, "speed": speed, **more})


def forecast(*runs: PendingRun, budget: int = 10**9, threads: int = 1) -> tuple[list[float], model.Caches]:
    """Return the seconds of each run, and the caches that they fill."""
    caches = model.fill_caches(runs, budget, threads)
    return [model.run_seconds(run, caches) for run in runs], caches


def test_a_run_that_trains_everything_pays_for_all_of_it() -> None:
    """Loading, forward and backward for each image, the optimizer for each step, val for each epoch, test once."""
    seconds, caches = forecast(pending(strategy="full"))
    assert seconds == [pytest.approx(FULL)]
    assert (caches.seconds, caches.bytes) == (DECODING, 150 * 50)
    assert forecast(pending(strategy="full"), threads=2)[1].seconds == DECODING / 2
    assert forecast(pending(strategy="full"), pending(strategy="full", seed=1))[1].seconds == DECODING


def test_caches_are_filled_once_and_runs_pay_for_what_comes_after_the_cut() -> None:
    """Whatever their seed and rate. What one run alone reads once, test, is not stored but costs the whole network."""
    seconds, caches = forecast(pending(strategy="head"))
    assert seconds == [pytest.approx(HEAD + 30 * (1 + 6))]
    assert caches.seconds == pytest.approx(DECODING + HEAD_CACHE)
    seconds, caches = forecast(*(pending(strategy="head", seed=seed, lr=0.01 * (1 + seed)) for seed in range(3)))
    assert seconds == [pytest.approx(HEAD + 30 * 0.125)] * 3
    assert caches.seconds == pytest.approx(DECODING + HEAD_CACHE + 30 * (1 + 5))


def test_one_pass_fills_all_cuts_that_runs_need_of_a_view() -> None:
    """It goes as deep as the deepest of them."""
    seconds, caches = forecast(pending(**HALF), pending(strategy="head"))
    assert seconds[0] == pytest.approx(2 * (100 * 8 + 2 * 1 + 20 * 2) + 30 * (1 + 6))
    assert seconds[1] == pytest.approx(HEAD + 30 * (1 + 6))
    assert caches.seconds == pytest.approx(DECODING + HEAD_CACHE)


@pytest.mark.parametrize(
    ("other", "shares_images"),
    [({"data": "elsewhere"}, False), ({"weights": "IMAGENET1K_V1"}, True), ({"split_seed": 1}, False)],
)
def test_runs_that_have_nothing_in_common_share_nothing(other: dict[str, Any], shares_images: bool) -> None:
    """Other images, weights, splits."""
    seconds, caches = forecast(pending(strategy="head"), pending(strategy="head", **other))
    alone, own = forecast(pending(strategy="head"))
    assert seconds == [pytest.approx(alone[0])] * 2
    assert caches.seconds == pytest.approx(2 * own.seconds - (DECODING if shares_images else 0))


def test_runs_that_augment_otherwise_share_val_and_test() -> None:
    """But not what they train on."""
    caches = forecast(pending(strategy="head"), pending(strategy="head", augment="none"))[1]
    assert caches.seconds == pytest.approx(DECODING + HEAD_CACHE + 30 * (1 + 5) + 100 * (1 + 5))


def test_random_weights_are_each_seed_s_own() -> None:
    """Their activations are of no use to another seed."""
    runs = [pending(strategy="head", weights="none", seed=seed) for seed in range(2)]
    assert forecast(*runs)[1].seconds == pytest.approx(DECODING + 2 * HEAD_CACHE)


def test_without_the_cache_every_epoch_pays_for_decoding_and_the_frozen_blocks() -> None:
    """With `cache: off`, and where there is no room."""
    each = 100 * (10 + 1 + 5 + 0.5) + 2 * 0.25 + 20 * (10 + 1 + 6)
    test = 30 * (10 + 1 + 6)
    seconds, caches = forecast(pending(strategy="head", cache="off"), pending(strategy="head", cache="off"))
    assert seconds == [pytest.approx(2 * each + test)] * 2
    assert (caches.seconds, caches.bytes, caches.refused_bytes) == (0.0, 0, 0)
    seconds, caches = forecast(pending(strategy="head"), pending(strategy="head", seed=1), budget=0)
    assert seconds == [pytest.approx(2 * each + test)] * 2
    assert (caches.seconds, caches.bytes, caches.refused_bytes) == (0.0, 0, 150 * 50 + 150 * 10)


def test_what_fits_is_kept_smallest_first() -> None:
    """A pass goes as deep as the cuts that there is room for."""
    runs = [pending(**HALF), pending(strategy="head")]
    small = 150 * 50 + 100 * 10 + 20 * 10 + 20 * 100
    seconds, caches = forecast(*runs, budget=small)
    assert (caches.bytes, caches.refused_bytes) == (small, 100 * 100)  # the half's views have no room
    assert seconds[0] > forecast(*runs)[0][0]


def test_auto_stores_what_is_read_twice_and_on_stores_all() -> None:
    """Two views for two epochs are read once each."""
    auto, on = (forecast(pending(strategy="head", views=2, cache=mode))[1].bytes for mode in ("auto", "on"))
    assert (auto, on) == (150 * 50 + 20 * 10, 150 * 50 + (2 * 100 + 20 + 30) * 10)


def test_a_schedule_is_followed_from_epoch_to_epoch() -> None:
    """Half of the epochs at one cut, then everything; epochs that are done cost nothing."""
    frozen = 100 * (1 + 3 + 8) + 2 * 1 + 20 * (1 + 6)
    schedule = {"strategy": "gradual", "unfreeze": [[0, 0.5], [1, 1]]}
    everything = FULL / 2 + 30 * (1 + 6) / 2
    for epochs_done, seconds in enumerate((frozen + everything, everything, 30 * (1 + 6))):
        assert forecast(pending(**schedule, epochs_done=epochs_done))[0] == [pytest.approx(seconds)]


def test_finished_runs_tell_how_long_an_epoch_takes() -> None:
    """Better than any probe; they have filled the caches, too."""
    seconds, caches = forecast(pending(strategy="head", epoch_seconds=7.0, epochs_done=1))
    assert seconds == [7.0]
    assert (caches.seconds, caches.bytes) == (0.0, 0)


def test_loader_processes_work_beside_the_network() -> None:
    """An epoch takes as long as the slower of the two."""
    slow = dataclasses.replace(SPEED, load=50.0)
    two, four = (forecast(pending(slow, strategy="full", workers=count))[0][0] for count in (2, 4))
    loading = (50 / 2, 50 / 4)
    evaluated = 2 * 20 + 30
    assert two - four == pytest.approx(2 * 100 * (loading[0] - 20) + evaluated * (loading[0] - loading[1]))


def test_starting_and_saving_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each epoch, two checkpoints are written, and the optimizer's state in one of them."""
    monkeypatch.setattr(model, "WRITE_SECONDS", 0.001)
    monkeypatch.setattr(model, "START_SECONDS", 3.0)
    saved = 2 * WEIGHT_BYTES * 1000 + ADAM_BYTES * 1000
    assert forecast(pending(strategy="full"))[0] == [pytest.approx(3.0 + FULL + 2 * saved * 0.001)]


def test_time_is_added_up_by_strategy() -> None:
    """Per run, and per epoch that is left."""
    runs = [pending(strategy="full"), pending(strategy="full", seed=1, epochs_done=1), pending(strategy="head")]
    strategies = model.forecast_strategies(runs, [10.0, 20.0, 3.0])
    assert {name: dataclasses.astuple(strategy) for name, strategy in strategies.items()} == {
        "full": (2, 30.0, 10.0),
        "head": (1, 3.0, 1.5),
    }


@pytest.mark.parametrize(
    ("keep", "left", "beside"), [("best_last", 2, 0), ("best", 1, 1), ("none", 0, 2), ("every", 4, 0)]
)
def test_the_disk_depends_on_which_weights_are_kept(keep: str, left: int, beside: int) -> None:
    """What stays of each run of two epochs; and best.pt, last.pt and one in the making of each that is under way."""
    runs = [pending(strategy="full", keep=keep, seed=seed) for seed in range(3)]
    for agents in (1, 2):
        found = model.run_bytes(runs, agents) - 3 * SMALL_FILES_BYTES
        assert found == (3 * left + agents * (beside + 1)) * WEIGHT_BYTES * 1000 + agents * 2 * ADAM_BYTES * 1000


def test_the_next_run_starts_when_an_agent_is_free() -> None:
    """Three of 3, 2 and 2 s end after 4 s in two slots, and the order counts."""
    assert model.wall_seconds([3, 2, 2], 2) == 4
    assert model.wall_seconds([2, 2, 3], 2) == 5
    assert model.wall_seconds([], 2) == 0


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=30), st.integers(1, 8))
def test_the_wall_time_lies_between_perfect_sharing_and_none(times: list[float], agents: int) -> None:
    """Never below the longest run or an equal share, and at most a longest run above that."""
    wall = model.wall_seconds(times, agents)
    shortest = max(max(times), sum(times) / agents)
    assert shortest - 1e-6 <= wall <= sum(times) / agents + max(times) + 1e-6
