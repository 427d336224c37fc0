"""What trains at an epoch, and at which rate: the only place that knows what "frozen" means.

A strategy is a schedule: after so many epochs, this share of the backbone's blocks, counted from the head, trains.
Everything here is a pure function of the schedule and the epoch or step, so a resumed run is the same run. All param
groups exist from the first step; unfreezing changes flags, never the list of groups.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from finetune.config import Schedule
from finetune.model import Classifier
from finetune.schedule import cosine_with_warmup, rewarm

Groups = list[dict[str, Any]]  # an optimiser's param groups


def share_at(schedule: Schedule, epoch: int) -> float:
    """Return the share of the backbone that trains when `epoch` epochs are finished."""
    return [share for start, share in schedule if start <= epoch][-1]


def trainable_blocks(share: float, blocks: int) -> int:
    """Return how many of `blocks` blocks, counted from the head, a share means: the nearest whole number."""
    return int(share * blocks + 0.5)


def last_unfreeze(schedule: Schedule) -> int:
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


def param_groups(model: Classifier, lr: float, backbone_lr: float | None, decay: float, weight_decay: float) -> Groups:
    """Return AdamW's groups: head and every block, each with and without weight decay, from head to input.

    A group carries `block` (its index, or None for the head) and `peak_lr`, which `rates` scales. The last block
    trains at `backbone_lr`, each one before it at `decay` times the rate of its successor. Biases and norms (1-D
    parameters) get no weight decay. A frozen block's parameters have no gradient, so AdamW leaves them alone.

    Args:
        backbone_lr: None where no block ever trains.
        decay: factor from one block to the next, away from the head (Howard and Ruder, ULMFiT, arXiv 1801.06146,
            section 3.2, layer by layer; block by block here).
    """
    last = len(model.blocks) - 1
    parts: list[tuple[int | None, nn.Module, float]] = [(None, model.head, lr)]
    if backbone_lr is not None:
        parts += [(index, model.blocks[index], backbone_lr * decay ** (last - index)) for index in range(last, -1, -1)]
    groups = []
    for index, module, peak in parts:
        name = "head" if index is None else f"block {index}"
        flat = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        rest = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        common = {"block": index, "peak_lr": peak, "lr": peak}
        groups.append({"name": name, "params": rest, "weight_decay": weight_decay, **common})
        groups.append({"name": f"{name}, no decay", "params": flat, "weight_decay": 0.0, **common})
    return [group for group in groups if group["params"]]


def rates(
    blocks: int, schedule: Schedule, steps_per_epoch: int, epochs: int, warmup_epochs: float, rewarm_epochs: float
) -> Callable[[int | None, int], float]:
    """Return a function (block or None for the head, step) -> multiplier of the group's peak rate, 0 while frozen.

    All follow one cosine over the whole run, with a warm-up at the start; a block that begins to train later rises
    along its own warm-up, under that cosine.
    """
    total = epochs * steps_per_epoch
    warmup = round(warmup_epochs * steps_per_epoch)
    rise = round(rewarm_epochs * steps_per_epoch)
    starts = [_unfrozen_at(index, blocks, schedule) for index in range(blocks)]

    def multiplier(block: int | None, step: int) -> float:
        base = cosine_with_warmup(step, total, warmup)
        start = 0 if block is None else starts[block]
        if start is None:
            return 0.0
        return base if start == 0 else base * rewarm(step, start * steps_per_epoch, rise)

    return multiplier


def _unfrozen_at(block: int, blocks: int, schedule: Schedule) -> int | None:
    """Return after how many epochs this block begins to train, or None if it never does."""
    return next((epoch for epoch, share in schedule if block >= blocks - trainable_blocks(share, blocks)), None)
