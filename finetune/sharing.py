"""How often the runs of a sweep would use what the frozen part makes of the pictures: what `cache: auto` goes by."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from finetune.config import Config
from finetune.strategies import share_at, trainable_blocks
from finetune.views import augmentation_of, view_at

# Fields in which runs must agree to share activations. Val and test need the first ones alone.
SAME_FIELDS = ("data", "backbone", "weights", "image_px", "split_seed", "folds", "fold")

# How many runs like this one `auto` reckons with where it can't know (one of a sweep on a W&B server).
UNKNOWN_PEERS = 3


class Need(NamedTuple):
    """Activations of a split: `view` is None for central crops; `cut` as in `Classifier.prefix`."""

    split: str
    view: int | None
    cut: int


def needs(config: Config, blocks: int) -> Counter[Need]:
    """Return how many epochs of a run use which activations.

    Args:
        config: resolved.
        blocks: of the backbone.
    """
    assert config.unfreeze is not None, "resolve() fills the schedule"
    uses: Counter[Need] = Counter()
    cut = 0
    for epoch in range(config.epochs):
        cut = blocks - trainable_blocks(share_at(config.unfreeze, epoch), blocks)
        if cut:
            uses[Need("val", None, cut)] += 1
            if config.views:
                uses[Need("train", view_at(epoch, config.views, config.seed), cut)] += 1
    if cut:
        uses[Need("test", None, cut)] += 1
    return uses


def shared_needs(config: Config, peers: Sequence[Config] | None, blocks: int) -> Counter[Need]:
    """Return how often all runs that can share them with this one use which activations.

    Args:
        config: of this run, resolved.
        peers: of all runs that are to do, this one among them; None where that is not known.
    """
    if peers is None:
        return Counter({need: UNKNOWN_PEERS * count for need, count in needs(config, blocks).items()})
    total: Counter[Need] = Counter()
    for peer in _with(config, peers):
        if any(getattr(peer, name) != getattr(config, name) for name in SAME_FIELDS):
            continue
        if config.weights == "none" and peer.seed != config.seed:
            continue
        views = needs(peer, blocks)
        if training_views(peer) != training_views(config):
            views = Counter({need: count for need, count in views.items() if need.view is None})
        total += views
    return total


def training_views(config: Config) -> tuple[str, float]:
    """Return what runs must agree in to share the activations of training pictures, beside SAME_FIELDS."""
    return augmentation_of(config), config.train_share


def _with(config: Config, peers: Iterable[Config]) -> list[Config]:
    others = list(peers)
    return others if config in others else [config, *others]
