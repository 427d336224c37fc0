"""The training loop: epochs of optimizer steps, val after each, and when to stop."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.errors import RunInterrupted
from finetune.models.classifier import Classifier
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.microbatch import (
    BatchNormStats,
    MicrobatchLimits,
    min_batch_size,
    restore_stats,
    run_in_microbatches,
    running_stats,
    snapshot_stats,
)
from finetune.models.unfreezing import UnfreezeSchedule, freeze_blocks
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.seeds import stream_seed
from finetune.training.batch_source import Batch, BatchSource
from finetune.training.divergence import check_losses, check_weights, current_rates, diverged_error
from finetune.training.evaluation import predict
from finetune.training.loss import batch_loss, compute_logits, hard_labels
from finetune.training.metrics import accuracy, cross_entropy, per_class_scores
from finetune.training.optimizer import allocate_state
from finetune.training.state import EpochState, TrainState, rng_states, set_rng_states

logger = logging.getLogger(__name__)

# Steps between two checks of the losses: a check in every step would make a GPU wait each time.
_CHECK_STEPS = 16


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the loop, constant over a run.

    Attributes:
        lr_multiplier: (block or None for the head, step) -> factor on the group's peak learning rate.
        patience: number of epochs without a better val, counted from the last unfreeze on, after which training stops;
            None to never stop early.
        autocast: lower precision for forward and backward, None for float32.
        seed: of dropout and stochastic depth.
        class_weights: (classes,) on the device, for the training loss; None for equal weights.
    """

    schedule: UnfreezeSchedule
    epochs: int
    lr_multiplier: Callable[[int | None, int], float]
    label_smoothing: float
    patience: int | None
    device: torch.device
    autocast: torch.dtype | None
    seed: int
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class TrainCallbacks:
    """Callbacks of the training loop.

    Attributes:
        on_epoch: called after each epoch, to save it; returns whether to stop training.
        on_progress: called after each batch with the phase (train or val) and the epochs finished, such as 2.35.
        interrupted: called after each batch of train and val; returns whether to raise RunInterrupted.
        joules: called after each batch; returns the energy used so far, None where it is not measured.
    """

    on_epoch: Callable[[], bool]
    on_progress: Callable[[str, float], None]
    interrupted: Callable[[], bool]
    joules: Callable[[], float | None] = lambda: None


class _EpochSetup(NamedTuple):
    """Constants of an epoch's steps; for `start`, `cut` and `steps` see BatchStream."""

    start: int
    cut: int
    steps: int
    stats: BatchNormStats  # of the trainable batch-norms
    min_size: int  # of a micro-batch


@dataclass(frozen=True)
class Trainer:
    """Trains a model from `state` on, which it keeps up to date; model and optimizer start in the same state."""

    settings: TrainSettings
    model: Classifier
    prefix: FrozenPrefix
    optimizer: torch.optim.Optimizer
    source: BatchSource
    state: TrainState
    callbacks: TrainCallbacks

    def fit(self) -> None:
        """Train to the end of the schedule, or to an early stop.

        Raises:
            DivergedError: a loss, a weight or the loss on val is not finite.
            TrainingError: out of memory even with the smallest micro-batch.
            RunInterrupted: `interrupted` returned true; state, model and optimizer are those after the last step.
        """
        while not self._is_done():
            self.state.history.append(self._run_epoch())
            self.state.epoch = EpochState()
            with self.state.epoch.timer.phase("save"):
                stop = self.callbacks.on_epoch()
            if stop:
                return

    def _is_done(self) -> bool:
        history, settings = self.state.history, self.settings
        is_over = self.state.finished or len(history) >= settings.epochs
        return is_over or should_stop(history, settings.schedule, settings.patience)

    def _run_epoch(self) -> EpochMetrics:
        """Train and validate for the rest of an epoch, and return its metrics."""
        epoch, done = self.state.epoch, len(self.state.history)
        joules_earlier, joules_before = epoch.joules, self.callbacks.joules()
        try:
            self._train_epoch()
            validated = self._validate()
        finally:  # also when interrupted: the epoch keeps the energy used so far
            epoch.joules = _add_joules(joules_earlier, joules_before, self.callbacks.joules())
        seconds = epoch.timer.seconds_by_phase()
        return {
            "epoch": done + 1,
            "train/loss": epoch.loss(),
            "train/accuracy": epoch.accuracy(),
            **validated,
            **current_rates(self.optimizer),
            "trainable_share": self.settings.schedule.share(done),
            "cached_share": epoch.start_block / len(self.model.blocks),
            "energy_joules": epoch.joules,
            "epoch_seconds": sum(seconds.values()),
            **{f"seconds/{phase}": value for phase, value in seconds.items()},
        }

    def _train_epoch(self) -> None:
        """Do the remaining steps of an epoch."""
        done, epoch = len(self.state.history), self.state.epoch
        self._begin_stage(done)
        stream = self.source.train(done, epoch.steps, self.settings.schedule.cut(done), epoch.timer)
        epoch.start_block = stream.start
        # Dropout and stochastic depth draw from torch's global stream. Seeding it in each epoch makes the epoch number
        # the complete state of the stream: a resumed run draws the same numbers as an uninterrupted one, and a run with
        # cached images the same as one without. The loader's start draws too, so seed after it.
        torch.manual_seed(stream_seed(self.settings.seed, "noise", done))
        if epoch.rng_states is not None:
            set_rng_states(epoch.rng_states, self.settings.device)
            epoch.rng_states = None
        setup = _EpochSetup(
            stream.start, stream.cut, stream.steps, running_stats(self.model), min_batch_size(self.model)
        )
        for step, batch in enumerate(epoch.timer.time_iterator(stream.batches), start=epoch.steps):
            self._train_step(step, batch, setup)
            self._after_step(done, stream.steps)
        check_weights(self.model, done, self.optimizer)

    def _begin_stage(self, done: int) -> None:
        """Freeze and allocate for the epoch after `done` finished ones."""
        first_epoch, limit = self.state.memory_limit
        if done >= first_epoch and limit is not None:
            self.state.micro_batch = min(limit, self.state.micro_batch or limit)
        freeze_blocks(self.model, self.settings.schedule.cut(done))
        allocate_state(self.optimizer, f"at epoch {done + 1}, {self._trainable_text(done)}")

    def _train_step(self, step: int, batch: Batch, setup: _EpochSetup) -> None:
        done, epoch = len(self.state.history), self.state.epoch
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.settings.lr_multiplier(group["block"], done * setup.steps + step)
        with epoch.timer.phase("suffix"):
            loss, correct = self._compute_gradients(step, batch, setup)
            self.optimizer.step()
        epoch.add(loss, correct, len(batch[1]))

    def _after_step(self, done: int, steps: int) -> None:
        """Check the losses now and then, report progress, and stop if asked to."""
        epoch = self.state.epoch
        if epoch.steps % _CHECK_STEPS == 0 or epoch.steps == steps:
            check_losses(epoch.losses, _CHECK_STEPS, done, self.optimizer)
        self.callbacks.on_progress("train", done + epoch.steps / steps)
        self.callbacks.joules()
        if self.callbacks.interrupted():
            check_losses(epoch.losses, _CHECK_STEPS, done, self.optimizer)
            check_weights(self.model, done, self.optimizer)
            raise RunInterrupted(f"stopped after step {epoch.steps} of {steps} of epoch {done + 1}")

    def _compute_gradients(self, step: int, batch: Batch, setup: _EpochSetup) -> tuple[Tensor, Tensor]:
        """Compute the gradients of the batch's mean loss, in one pass or, if memory runs out, in micro-batches.

        The gradients are the same, except that trainable batch-norms then see micro-batches. Returns the mean loss and
        the number of correct images, 0-d tensors on the computing device.
        """
        settings, (inputs, labels) = self.settings, batch
        rng, stats_before = rng_states(settings.device), snapshot_stats(setup.stats)
        count = len(labels)

        def work(sizes: list[int]) -> tuple[Tensor, Tensor]:
            self.model.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=settings.device)
            correct = torch.zeros((), dtype=torch.int64, device=settings.device)
            for piece, targets in zip(torch.split(inputs, sizes), torch.split(labels, sizes), strict=True):
                with self.state.epoch.timer.phase("prefix"):
                    hidden = self.prefix.run(piece, setup.start, setup.cut)
                logits = compute_logits(self.model, hidden, setup.cut, settings.autocast)
                part = batch_loss(logits, targets, settings.label_smoothing, settings.class_weights)
                part = part * (len(targets) / count)
                part.backward()  # type: ignore[no-untyped-call]
                loss += part.detach()
                correct += (logits.argmax(dim=1) == hard_labels(targets)).sum()
            return loss, correct

        def on_smaller(reason: str, sizes: list[int]) -> None:
            note = "; batch-norm that trains sees one micro-batch at a time" if setup.min_size > 1 else ""
            logger.info(
                f"{reason}: continues with {len(sizes)} micro-batches of {sizes[0]}, the same batch of {count}{note}"
            )
            self.model.zero_grad(set_to_none=True)
            set_rng_states(rng, settings.device)
            restore_stats(setup.stats, stats_before)

        done = len(self.state.history)
        context = f"at epoch {done + 1}, step {step + 1}, {self._trainable_text(done)}"
        limits = MicrobatchLimits(self.state.micro_batch, setup.min_size)
        result, self.state.micro_batch = run_in_microbatches(work, count, limits, settings.device, context, on_smaller)
        return result

    def _trainable_text(self, done: int) -> str:
        return f"where {self.settings.schedule.share(done):.0%} of the backbone trains"

    def _validate(self) -> EpochMetrics:
        """Return the metrics on val. An interrupted val keeps nothing but its time."""
        epoch, settings = len(self.state.history) + 1, self.settings
        timer = self.state.epoch.timer

        def on_batch() -> None:
            self.callbacks.on_progress("val", epoch)
            if self.callbacks.interrupted():
                raise RunInterrupted(f"stopped in val of epoch {epoch}")

        with timer.phase("val"):
            stream = self.source.evaluation("val", settings.schedule.cut(epoch - 1), timer)
            scores, labels = predict(self.model, stream, settings.device, settings.autocast, on_batch)
            loss = cross_entropy(scores, labels)
            if not math.isfinite(loss):
                raise diverged_error(f"the loss on val is {loss} after epoch {epoch}", self.optimizer)
            by_class = per_class_scores(scores, labels)
            return {
                "val/loss": loss,
                "val/accuracy": accuracy(scores, labels),
                "val/macro_f1": float(np.nanmean(by_class.f1)),
                "val/min_recall": float(np.nanmin(by_class.recall)),
            }


def should_stop(history: list[EpochMetrics], schedule: UnfreezeSchedule, patience: int | None) -> bool:
    """Return whether val has not improved for `patience` epochs since its best or, if later, the last unfreeze."""
    if patience is None or not history:
        return False
    return bool(len(history) - max(best_row(history)["epoch"], schedule.last_step) >= patience)


def _add_joules(earlier: float | None, before: float | None, now: float | None) -> float | None:
    """Return the energy of an epoch over all its attempts; None if a part of it was not measured."""
    return None if earlier is None or before is None or now is None else earlier + now - before
