"""The training loop: epochs of AdamW steps, val after each, and when to stop. It receives parts, never a config."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn

from finetune.config import Schedule
from finetune.data.loading import Batches, Loader, stream_seed
from finetune.errors import TrainingError
from finetune.evaluate import accuracy, cross_entropy, predict
from finetune.model import Classifier
from finetune.strategies import last_unfreeze, set_trainable, share_at, trainable_blocks

Row = dict[str, Any]  # one epoch, record.HISTORY_KEYS

# How often losses are looked at: every step would make a GPU wait for each one.
_CHECK_STEPS = 16


@dataclass(frozen=True)
class Loop:
    """What stays the same from epoch to epoch.

    Attributes:
        schedule: which share of the backbone trains when.
        multiplier: (block or None for the head, step) -> factor on the group's peak rate.
        patience: epochs without a better val, counted from the last unfreeze on, before the run stops; or None.
        autocast: lower precision for forward and backward, or None for float32.
        seed: of dropout and stochastic depth.
    """

    schedule: Schedule
    epochs: int
    multiplier: Callable[[int | None, int], float]
    label_smoothing: float
    patience: int | None
    device: torch.device
    autocast: torch.dtype | None
    seed: int


def fit(
    loop: Loop,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    train: tuple[Loader, Batches],
    val: Loader,
    history: list[Row],
    on_epoch: Callable[[list[Row]], bool],
    on_progress: Callable[[str, float], None],
) -> list[Row]:
    """Train from where `history` ends to the end of the schedule, or to an early stop; return the whole history.

    Args:
        train: the loader and the sampler inside it, whose epoch is set here.
        history: rows of the epochs already trained; the model and the optimiser are as they were after the last one.
        on_epoch: called with the history after each epoch, to save it; true ends the training there.
        on_progress: called with the phase (train or val) and the epochs finished, such as 2.35, after each batch.

    Raises:
        TrainingError: the loss is not finite.
    """
    history = list(history)
    for epoch in range(len(history), loop.epochs):
        if should_stop(history, loop.schedule, loop.patience):
            break
        start = time.perf_counter()
        row = _train_epoch(loop, model, optimizer, train, epoch, on_progress)
        trained = time.perf_counter()
        log_probabilities, labels = predict(
            model, val, loop.device, loop.autocast, partial(on_progress, "val", epoch + 1)
        )
        row |= {
            "val/loss": cross_entropy(log_probabilities, labels),
            "val/accuracy": accuracy(log_probabilities, labels),
            **_rates(optimizer),
            "trainable_share": trainable_blocks(share_at(loop.schedule, epoch), len(model.blocks)) / len(model.blocks),
            "epoch_seconds": time.perf_counter() - start,
            "seconds/train": trained - start,
        }
        history.append(row)
        if on_epoch(history):
            break
    return history


def best_row(history: list[Row]) -> Row:
    """Return the epoch with the best val accuracy; the lower val loss decides between equals, then the earlier one."""
    return max(history, key=lambda row: (row["val/accuracy"], -row["val/loss"], -row["epoch"]))


def should_stop(history: list[Row], schedule: Schedule, patience: int | None) -> bool:
    """Whether val has not improved for `patience` epochs since its best or, if that came later, the last unfreeze."""
    if patience is None or not history:
        return False
    return bool(len(history) - max(best_row(history)["epoch"], last_unfreeze(schedule)) >= patience)


def _train_epoch(
    loop: Loop,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    train: tuple[Loader, Batches],
    epoch: int,
    on_progress: Callable[[str, float], None],
) -> Row:
    """Make one pass over the training pictures and return the training half of its row."""
    loader, batches = train
    batches.epoch = epoch
    steps = len(batches)
    set_trainable(model, trainable_blocks(share_at(loop.schedule, epoch), len(model.blocks)))
    # Dropout and stochastic depth draw from torch's global stream. Seeding it for each epoch makes the epoch number
    # the whole state of the stream, so that a resumed run draws what the uninterrupted one would have drawn.
    torch.manual_seed(stream_seed(loop.seed, "noise", epoch))
    loss_function = nn.CrossEntropyLoss(label_smoothing=loop.label_smoothing)
    losses: list[Tensor] = []
    sizes: list[int] = []
    right = torch.zeros((), dtype=torch.int64, device=loop.device)
    for index, (images, labels) in enumerate(loader):
        images = images.to(loop.device, memory_format=torch.channels_last, non_blocking=True)
        labels = labels.to(loop.device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * loop.multiplier(group["block"], epoch * steps + index)
        with torch.autocast(loop.device.type, loop.autocast, enabled=loop.autocast is not None):
            logits = model(images)
        loss = loss_function(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        sizes.append(len(labels))
        right += (logits.argmax(dim=1) == labels).sum()
        if len(losses) % _CHECK_STEPS == 0 or index == steps - 1:
            _check_losses(losses, epoch, optimizer)
        on_progress("train", epoch + (index + 1) / steps)
    return {
        "epoch": epoch + 1,
        "train/loss": sum(map(mul, torch.stack(losses).tolist(), sizes)) / sum(sizes),
        "train/accuracy": int(right) / sum(sizes),
    }


def _check_losses(losses: list[Tensor], epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise TrainingError at the first of the newest losses that is not finite."""
    newest = torch.stack(losses[-_CHECK_STEPS:]).tolist()
    bad = next((index for index, loss in enumerate(newest) if not math.isfinite(loss)), None)
    if bad is None:
        return
    step = len(losses) - len(newest) + bad
    good = next((f"{float(loss):.4g}" for loss in reversed(losses[:step])), "none in this epoch")
    rate = _rates(optimizer)
    raise TrainingError(
        f"the loss is {newest[bad]} at step {step + 1} of epoch {epoch + 1} (rates: head {rate['lr/head']:.2g}, "
        f"backbone {rate['lr/backbone']:.2g}; last finite loss: {good}). "
        "Lower lr or backbone_lr first; then raise warmup_epochs, or set precision to fp32"
    )


def _rates(optimizer: torch.optim.Optimizer) -> Row:
    """Return the rates of the head and of the fastest backbone block, as the last step used them."""
    head = [group["lr"] for group in optimizer.param_groups if group["block"] is None]
    backbone = [group["lr"] for group in optimizer.param_groups if group["block"] is not None]
    return {"lr/head": max(head), "lr/backbone": max(backbone, default=0.0)}
