"""How often the runs of a sweep use the same activations."""

from collections import Counter
from typing import Any

from finetune.cache.reuse import UNKNOWN_PEERS, ActivationKey, activation_uses, deepest_cut, shared_activation_uses
from finetune.config import Config, parse_config
from finetune.resolve import resolve

BLOCKS = 9


def config(**values: Any) -> Config:
    return resolve(parse_config({"data": "somewhere", "epochs": 8, "views": 2, **values}, "a test"))


def test_a_run_needs_its_cut_in_every_epoch_that_has_a_frozen_part() -> None:
    """Views take turns; val is the same in every epoch; test is read once."""
    assert activation_uses(config(strategy="head"), BLOCKS) == Counter(
        {
            ActivationKey("train", 0, 9): 4,
            ActivationKey("train", 1, 9): 4,
            ActivationKey("val", None, 9): 8,
            ActivationKey("test", None, 9): 1,
        }
    )
    gradual = activation_uses(config(strategy="gradual"), BLOCKS)
    assert {key.cut: gradual[key] for key in gradual if key.split == "val"} == {9: 1, 6: 2, 3: 1}
    assert not any(key.split == "test" for key in gradual)
    assert not activation_uses(config(strategy="full"), BLOCKS)


def test_without_views_no_epoch_sees_what_another_has_seen() -> None:
    """Fresh augmentation can't be kept; val can."""
    assert {key.split for key in activation_uses(config(strategy="partial", views=0), BLOCKS)} == {"val", "test"}


def test_runs_share_what_is_of_the_same_pictures_network_and_size() -> None:
    """Rates, seeds and other cuts make no difference; other weights, sizes and data do."""
    mine = config(strategy="head")
    peers = [mine, config(strategy="head", seed=1, lr=0.01), config(strategy="partial"), config(strategy="full")]
    others = [config(strategy="head", **{name: value}) for name, value in OTHERS.items()]
    uses = shared_activation_uses(mine, [*peers, *others], BLOCKS)
    assert uses[ActivationKey("val", None, 9)] == 16
    assert uses[ActivationKey("val", None, 6)] == 8
    assert uses[ActivationKey("train", 0, 9)] == 8
    assert shared_activation_uses(mine, peers[1:], BLOCKS) == uses  # this run is counted, named or not


OTHERS: dict[str, Any] = {
    **{"data": "elsewhere", "backbone": "resnet18", "weights": "other.pth", "image_px": 96, "split_seed": 1},
}


def test_other_augmentation_shares_val_alone() -> None:
    """Central crops are the same."""
    uses = shared_activation_uses(config(strategy="head"), [config(strategy="head", augment="none")], BLOCKS)
    assert uses[ActivationKey("val", None, 9)] == 16
    assert uses[ActivationKey("train", 0, 9)] == 4


def test_random_weights_are_shared_by_runs_of_the_same_seed() -> None:
    """They are drawn from it."""
    mine = config(strategy="head", weights="none")
    uses = shared_activation_uses(
        mine, [config(strategy="partial", weights="none", seed=seed) for seed in (0, 1)], BLOCKS
    )
    assert uses[ActivationKey("val", None, 6)] == 8


def test_only_cuts_of_views_that_a_run_reads_are_computed() -> None:
    """A run that freezes nothing needs no copy of the backbone; others fill entries for their peers."""
    head, partial, full = (config(strategy=strategy) for strategy in ("head", "partial", "full"))

    def deepest(mine: Config, *peers: Config) -> int:
        return deepest_cut(mine, shared_activation_uses(mine, [mine, *peers], BLOCKS), BLOCKS)

    assert deepest(full, head, partial) == 0
    assert deepest(partial, full) == 6
    assert deepest(partial, head) == 9


def test_of_unknown_peers_some_are_reckoned_with() -> None:
    """A run of a sweep on a server can't know the others."""
    mine = config(strategy="head")
    alone = shared_activation_uses(mine, [], BLOCKS)
    assert shared_activation_uses(mine, None, BLOCKS) == Counter(
        {key: UNKNOWN_PEERS * count for key, count in alone.items()}
    )
