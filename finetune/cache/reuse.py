"""How often the runs of a sweep read the activations of the frozen prefix: decides what `cache: auto` stores."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from finetune.config import Config
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.resolve import SPLIT_FIELDS
from finetune.seeds import stream_seed

# Runs share activations if they agree in these; for those of training images, in `training_views` as well.
SAME_FIELDS = (*SPLIT_FIELDS, "backbone", "weights", "image_px")
UNKNOWN_PEERS = 3  # number of similar runs that `auto` assumes for a run of a sweep on a W&B server


class ActivationKey(NamedTuple):
    """Activations of a split: `view` is None for central crops; `cut` as in `Classifier.prefix`."""

    split: str
    view: int | None
    cut: int


def activation_uses(config: Config, blocks: int) -> Counter[ActivationKey]:
    """Return how many epochs of a run (config resolved) with a backbone of `blocks` blocks read which activations."""
    schedule = UnfreezeSchedule.of(config, blocks)
    uses: Counter[ActivationKey] = Counter()
    cut = 0
    for epoch in range(config.epochs):
        cut = schedule.cut(epoch)
        if cut:
            uses[ActivationKey("val", None, cut)] += 1
            if config.views:
                uses[ActivationKey("train", view_at(epoch, config.views, config.seed), cut)] += 1
    if cut:
        uses[ActivationKey("test", None, cut)] += 1
    return uses


def shared_activation_uses(config: Config, peers: Sequence[Config] | None, blocks: int) -> Counter[ActivationKey]:
    """Return how often this and the pending runs (`peers`; None: unknown) read the activations that they share."""
    if peers is None:
        return Counter({key: UNKNOWN_PEERS * count for key, count in activation_uses(config, blocks).items()})
    total: Counter[ActivationKey] = Counter()
    for peer in peers if config in peers else [config, *peers]:
        if any(getattr(peer, name) != getattr(config, name) for name in SAME_FIELDS):
            continue
        if config.weights == "none" and peer.seed != config.seed:
            continue
        uses = activation_uses(peer, blocks)
        if training_views(peer) != training_views(config):
            uses = Counter({key: count for key, count in uses.items() if key.view is None})
        total += uses
    return total


def should_store(key: ActivationKey, uses: Counter[ActivationKey], mode: str) -> bool:
    """Return whether activations are stored; mode `auto` stores those that the pending runs read at least twice."""
    return key.cut > 0 and (mode == "on" or (mode == "auto" and uses[key] > 1))


def entries_of_pass(key: ActivationKey, uses: Counter[ActivationKey], mode: str) -> set[ActivationKey]:
    """Return the entries that one pass over a view fills: `key`, and all of the same view that should be stored."""
    return {key, *(used for used in uses if used[:2] == key[:2] and should_store(used, uses, mode))}


def deepest_cut(config: Config, uses: Counter[ActivationKey], blocks: int) -> int:
    """Return the largest cut that a run computes activations for: 0 where it never freezes a block.

    One pass over a view fills the cuts of all runs that share it, so peers count where they read the same views:
    `uses` are those of `shared_activation_uses`.
    """
    passes = {(key.split, key.view) for key in activation_uses(config, blocks)}
    return max((key.cut for key in uses if (key.split, key.view) in passes), default=0)


def training_views(config: Config) -> tuple[str, float]:
    """Return the values in which runs must agree to share activations of training images, beside SAME_FIELDS."""
    return augmentation_of(config), config.train_share


def view_at(epoch: int, views: int, seed: int) -> int:
    """Return the view, from 0 to `views` - 1, of the epoch after `epoch` finished ones.

    Each view comes once in every `views` epochs, in a random order that depends on the seed. So seeds share views,
    which are computed once, and still differ in more than the order of images.
    """
    turn, position = divmod(epoch, views)
    generator = torch.Generator().manual_seed(stream_seed(seed, "views", turn))
    return int(torch.randperm(views, generator=generator)[position])


def view_stream_name(view: int) -> str:
    """Return the name of the random stream that augments a view: the same for runs of all seeds."""
    return f"view {view}"


def augmentation_of(config: Config) -> str:
    """Return the augmentation of training images as text; runs that agree in it share views."""
    return f"{config.augment}, erasing {config.erasing}" if config.erasing else config.augment
