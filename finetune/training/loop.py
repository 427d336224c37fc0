"""The training loop: epochs of AdamW steps, val after each, and when to stop. It receives parts, never a config."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from finetune.errors import RunInterrupted
from finetune.models.classifier import Classifier
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.microbatch import (
    BatchNormStats,
    min_batch_size,
    restore_stats,
    run_in_microbatches,
    running_stats,
    snapshot_stats,
)
from finetune.models.unfreezing import UnfreezeSchedule, freeze_blocks
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.seeds import stream_seed
from finetune.training.batch_source import BatchStream
from finetune.training.divergence import check_losses, check_weights, diverged, rates_of
from finetune.training.evaluation import predict
from finetune.training.loss import batch_loss, hard_labels
from finetune.training.metering import PhaseTimer
from finetune.training.metrics import accuracy, cross_entropy, per_class_scores
from finetune.training.optimizer import allocate_state
from finetune.training.state import EpochState, random_state, set_random_state

logger = logging.getLogger(__name__)

# How often losses are looked at: every step would make a GPU wait for each one.
_CHECK_STEPS = 16


@dataclass(frozen=True)
class TrainSettings:
    """What stays the same from epoch to epoch.

    Attributes:
        schedule: which blocks train when.
        multiplier: (block or None for the head, step) -> factor on the group's peak rate.
        patience: epochs without a better val, counted from the last unfreeze on, before the run stops; or None.
        autocast: lower precision for forward and backward, or None for float32.
        seed: of dropout and stochastic depth.
        class_weights: (classes,) on the device, for the training loss; None where every picture weighs the same.
    """

    schedule: UnfreezeSchedule
    epochs: int
    multiplier: Callable[[int | None, int], float]
    label_smoothing: float
    patience: int | None
    device: torch.device
    autocast: torch.dtype | None
    seed: int
    class_weights: Tensor | None = None


@dataclass
class TrainState:
    """How far training has come: with the model and the optimiser, all that a resume needs.

    Attributes:
        history: rows of the finished epochs.
        epoch: the epoch under way; between epochs, one without steps.
        micro_batch: pictures in one pass of the network at most, once memory ran out; None for whole batches.
        over: whether training is over, and only the test is missing.
        rehearsed: from so many finished epochs on, pictures that fit in one pass at most (see memory_check.py).
    """

    history: list[EpochMetrics] = field(default_factory=list)
    epoch: EpochState = field(default_factory=EpochState)
    micro_batch: int | None = None
    over: bool = False
    rehearsed: tuple[int, int | None] = (0, None)


class BatchSourceProtocol(Protocol):
    """What training and val are fed with; see batch_source.py."""

    def train(self, epoch: int, first: int, cut: int, clock: PhaseTimer) -> BatchStream:
        """Return an epoch's batches from batch `first` on, when `epoch` are finished and blocks < `cut` are frozen."""

    def val(self, cut: int, clock: PhaseTimer) -> BatchStream:
        """Return the batches of val, in its order."""


@dataclass(frozen=True)
class TrainCallbacks:
    """Whom the loop tells and asks.

    Attributes:
        on_epoch: called after each epoch, to save it; true ends the training there.
        on_progress: called with the phase (train or val) and the epochs finished, such as 2.35, after each batch.
        interrupted: asked after each batch of train and val; true ends the training there, to be resumed.
        joules: energy used up to now, called after each batch; None where nothing tells.
    """

    on_epoch: Callable[[], bool]
    on_progress: Callable[[str, float], None]
    interrupted: Callable[[], bool]
    joules: Callable[[], float | None] = lambda: None


def fit(
    loop: TrainSettings,
    model: Classifier,
    prefix: FrozenPrefix,
    optimizer: torch.optim.Optimizer,
    feed: BatchSourceProtocol,
    standing: TrainState,
    calls: TrainCallbacks,
) -> None:
    """Train to the end of the schedule, or to an early stop, and keep `standing` up to date.

    Args:
        prefix: of this model, for what is frozen.
        standing: where to start; the model and the optimiser are as they were there.

    Raises:
        DivergedError: the loss is not finite.
        TrainingError: the memory is too small even for the smallest micro-batch.
        Interrupted: as asked; `standing`, model and optimiser are as the last step left them.
    """
    history = standing.history
    while not (standing.over or len(history) >= loop.epochs or should_stop(history, loop.schedule, loop.patience)):
        begun, earlier = calls.joules(), standing.epoch.joules
        try:
            trained = _train_epoch(loop, model, prefix, optimizer, feed, standing, calls)
            validated = _validate(loop, model, optimizer, feed, standing, calls)
        finally:  # an epoch that is interrupted keeps what it has used
            standing.epoch.joules = _sum(earlier, calls.joules(), begun)
        spent = standing.epoch.clock.spent()
        row = {
            **trained,
            **validated,
            **rates_of(optimizer),
            "trainable_share": loop.schedule.share(len(history)),
            "cached_share": standing.epoch.fed_from / len(model.blocks),
            "energy_joules": standing.epoch.joules,
            "epoch_seconds": sum(spent.values()),
            **{f"seconds/{part}": seconds for part, seconds in spent.items()},
        }
        history.append(row)
        standing.epoch = EpochState()
        with standing.epoch.clock.on("save"):
            stop = calls.on_epoch()
        if stop:
            break


def _sum(earlier: float | None, now: float | None, begun: float | None) -> float | None:
    """Return the joules of an epoch: those of earlier attempts and the new ones; None where some are not known."""
    return None if earlier is None or now is None or begun is None else earlier + now - begun


def should_stop(history: list[EpochMetrics], schedule: UnfreezeSchedule, patience: int | None) -> bool:
    """Whether val has not improved for `patience` epochs since its best or, if that came later, the last unfreeze."""
    if patience is None or not history:
        return False
    return bool(len(history) - max(best_row(history)["epoch"], schedule.last_step) >= patience)


def _train_epoch(
    loop: TrainSettings,
    model: Classifier,
    prefix: FrozenPrefix,
    optimizer: torch.optim.Optimizer,
    feed: BatchSourceProtocol,
    standing: TrainState,
    calls: TrainCallbacks,
) -> EpochMetrics:
    """Make the steps that are left of a pass over the training pictures; return the training half of its row."""
    number, epoch = len(standing.history), standing.epoch
    stage, limit = standing.rehearsed
    if number >= stage and limit is not None:
        standing.micro_batch = min(limit, standing.micro_batch or limit)
    cut, share = loop.schedule.cut(number), loop.schedule.share(number)
    freeze_blocks(model, cut)
    allocate_state(optimizer, f"at epoch {number + 1}, where {share:.0%} of the backbone trains")
    least, seen = min_batch_size(model), running_stats(model)
    fed = feed.train(number, epoch.steps, cut, epoch.clock)
    steps, epoch.fed_from = fed.steps, fed.start
    # Dropout and stochastic depth draw from torch's global stream. Seeding it for each epoch makes the epoch number
    # the whole state of the stream, so that a resumed run draws what the uninterrupted one would have drawn, and one
    # whose pictures come from a cache draws what another does: after the loader's start, which draws too.
    torch.manual_seed(stream_seed(loop.seed, "noise", number))
    if epoch.random is not None:
        set_random_state(epoch.random, loop.device)
        epoch.random = None
    for index, (inputs, labels) in enumerate(epoch.clock.waiting(fed.batches), start=epoch.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * loop.multiplier(group["block"], number * steps + index)
        where = f"at epoch {number + 1}, step {index + 1}, where {share:.0%} of the backbone trains"
        batch = Batch(inputs, labels, fed.start, cut)
        with epoch.clock.on("suffix"):
            loss, right = _gradients(loop, model, prefix, batch, standing, least, seen, where)
            optimizer.step()
        epoch.add(loss, right, len(labels))
        if epoch.steps % _CHECK_STEPS == 0 or epoch.steps == steps:
            check_losses(epoch.losses, _CHECK_STEPS, number, optimizer)
        calls.on_progress("train", number + epoch.steps / steps)
        calls.joules()
        if calls.interrupted():
            check_losses(epoch.losses, _CHECK_STEPS, number, optimizer)
            check_weights(model, number, optimizer)
            raise RunInterrupted(f"stopped after step {epoch.steps} of {steps} of epoch {number + 1}")
    check_weights(model, number, optimizer)
    return {"epoch": number + 1, "train/loss": epoch.loss(), "train/accuracy": epoch.accuracy()}


class Batch(NamedTuple):
    """A batch on the device: inputs enter block `start`, blocks before `cut` are frozen; both as in `Fed`."""

    inputs: Tensor
    labels: Tensor
    start: int
    cut: int


def _gradients(
    loop: TrainSettings,
    model: Classifier,
    prefix: FrozenPrefix,
    batch: Batch,
    standing: TrainState,
    least: int,
    seen: BatchNormStats,
    where: str,
) -> tuple[Tensor, Tensor]:
    """Give the parameters the gradients of the batch's mean loss, in one pass or, where memory ran out, in several.

    Batch-norm aside, which then sees micro-batches, these are the same gradients.

    Args:
        least: pictures in a pass at least.
        seen: of batch-norm; what an attempt that failed has added is taken back.

    Returns:
        The loss and how many pictures were named rightly, 0-d tensors on the device that computes.
    """
    noise, before = random_state(loop.device), snapshot_stats(seen)
    count, clock = len(batch.labels), standing.epoch.clock

    def work(sizes: list[int]) -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=loop.device)
        right = torch.zeros((), dtype=torch.int64, device=loop.device)
        for some, wanted in zip(torch.split(batch.inputs, sizes), torch.split(batch.labels, sizes), strict=True):
            with clock.on("prefix"):
                hidden = prefix.run(some, batch.start, batch.cut)
            with torch.autocast(loop.device.type, loop.autocast, enabled=loop.autocast is not None):
                logits = model.suffix(hidden, batch.cut)
            part = batch_loss(logits.float(), wanted, loop.label_smoothing, loop.class_weights) * (len(wanted) / count)
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            right += (logits.argmax(dim=1) == hard_labels(wanted)).sum()
        return loss, right

    def again(what: str, sizes: list[int]) -> None:
        logger.info(
            f"{what}: goes on with {len(sizes)} micro-batches of {sizes[0]}, the same batch of {count}"
            + ("; batch-norm that trains sees one micro-batch at a time" if least > 1 else "")
        )
        model.zero_grad(set_to_none=True)
        set_random_state(noise, loop.device)
        restore_stats(seen, before)

    result, standing.micro_batch = run_in_microbatches(
        work, count, standing.micro_batch, least, loop.device, where, again
    )
    return result


def _validate(
    loop: TrainSettings,
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    feed: BatchSourceProtocol,
    standing: TrainState,
    calls: TrainCallbacks,
) -> EpochMetrics:
    """Return the val half of an epoch's row. Nothing is kept of a val that is interrupted, but its time."""
    number, clock = len(standing.history) + 1, standing.epoch.clock
    cut = loop.schedule.cut(number - 1)

    def on_batch() -> None:
        calls.on_progress("val", number)
        if calls.interrupted():
            raise RunInterrupted(f"stopped in val of epoch {number}")

    with clock.on("val"):
        fed = feed.val(cut, clock)
        scores, labels = predict(model, fed, loop.device, loop.autocast, on_batch)
        classes = per_class_scores(scores, labels)
        loss = cross_entropy(scores, labels)
        if not math.isfinite(loss):
            raise diverged(f"the loss on val is {loss} after epoch {number}", optimizer)
        return {
            "val/loss": loss,
            "val/accuracy": accuracy(scores, labels),
            "val/macro_f1": float(np.nanmean(classes.f1)),
            "val/min_recall": float(np.nanmin(classes.recall)),
        }
