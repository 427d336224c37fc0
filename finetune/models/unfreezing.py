"""What trains at an epoch, and at which rate: the only place that knows what "frozen" means.

A strategy is a schedule: after so many epochs, this share of the backbone's blocks, counted from the head, trains.
Everything here is a pure function of the schedule and the epoch or step, so a resumed run is the same run. All param
groups exist from the first step; unfreezing changes flags, never the list of groups.
"""

from finetune.config import Schedule
from finetune.models.classifier import Classifier


def share_at(schedule: Schedule, epoch: int) -> float:
    """Return the share of the backbone that trains when `epoch` epochs are finished."""
    return [share for start, share in schedule if start <= epoch][-1]


def trainable_blocks(share: float, blocks: int) -> int:
    """Return how many of `blocks` blocks, counted from the head, a share means: the nearest whole number."""
    return int(share * blocks + 0.5)


def last_unfreeze_epoch(schedule: Schedule) -> int:
    """Return after how many epochs the schedule takes its last step."""
    return schedule[-1][0]


def set_trainable(model: Classifier, count: int) -> None:
    """Train the head and the last `count` blocks; freeze the rest.

    Frozen means that nothing of a block changes: its parameters have requires_grad=False, and it is in eval mode, so
    that batch-norm statistics stand still and dropout and stochastic depth are off. To be called for every epoch,
    since model.train() would undo it.
    """
    model.train()
    frozen = len(model.blocks) - count
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= frozen)
        block.train(index >= frozen)


def _unfrozen_at(block: int, blocks: int, schedule: Schedule) -> int | None:
    """Return after how many epochs this block begins to train, or None if it never does."""
    return next((epoch for epoch, share in schedule if block >= blocks - trainable_blocks(share, blocks)), None)
