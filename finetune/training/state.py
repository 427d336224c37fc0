"""How far training has come, and the epoch under way: the part of a checkpoint beside model and optimizer."""

from dataclasses import dataclass, field
from operator import mul
from typing import Any

import torch
from torch import Tensor

from finetune.rundir.best_epoch import EpochMetrics
from finetune.training.metering import PhaseTimer


@dataclass
class EpochState:
    """The steps of the epoch under way.

    Attributes:
        losses: mean loss of each step, label smoothing included: 0-d tensors on the computing device.
        sizes: number of images of each step.
        correct: number of images whose likeliest class was right, on the computing device.
        timer: wall time by phase since the end of the last epoch, without interruptions.
        joules: energy used, None where it is not measured.
        start_block: block that the inputs enter; above 0 where a cache holds the activations before it.
        rng_states: states of torch's random streams to continue with, if they come from a checkpoint.
    """

    losses: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    correct: Tensor | int = 0
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    joules: float | None = 0.0
    start_block: int = 0
    rng_states: dict[str, Tensor] | None = None

    @property
    def steps(self) -> int:
        """Number of finished steps."""
        return len(self.sizes)

    def add(self, loss: Tensor, correct: Tensor, size: int) -> None:
        """Add a step: its mean loss, and the number of its `size` images whose likeliest class was right."""
        self.losses.append(loss)
        self.sizes.append(size)
        self.correct += correct

    def loss(self) -> float:
        """Return the mean loss over images."""
        return float(sum(map(mul, torch.stack(self.losses).tolist(), self.sizes)) / sum(self.sizes))

    def accuracy(self) -> float:
        """Return the training accuracy so far."""
        return int(self.correct) / sum(self.sizes)


@dataclass
class TrainState:
    """How far training has come: with model and optimizer, all that a resume needs.

    Attributes:
        history: metrics of the finished epochs.
        epoch: the epoch under way; has no steps between epochs.
        micro_batch: maximum number of images in one pass, set once memory ran out; None for complete batches.
        finished: whether training is over and only the test is missing.
        memory_limit: (finished epochs, maximum number of images in one pass from then on), from memory_check.py.
    """

    history: list[EpochMetrics] = field(default_factory=list)
    epoch: EpochState = field(default_factory=EpochState)
    micro_batch: int | None = None
    finished: bool = False
    memory_limit: tuple[int, int | None] = (0, None)

    def seconds(self) -> float:
        """Return the training time so far."""
        epochs = sum(row["epoch_seconds"] for row in self.history)
        return float(epochs + sum(self.epoch.timer.seconds_by_phase().values()))


def to_checkpoint(epoch: EpochState, device: torch.device) -> dict[str, Any]:
    """Return the epoch and the random streams to continue with, as plain values and tensors."""
    return {
        "losses": torch.stack(epoch.losses).cpu(),
        "sizes": epoch.sizes,
        "right": int(epoch.correct),
        "spent": epoch.timer.seconds_by_phase(),
        "joules": epoch.joules,
        # If the run stopped before the loaded states were used (while a cache was filled), save them again.
        "random": rng_states(device) if epoch.rng_states is None else epoch.rng_states,
    }


def from_checkpoint(content: dict[str, Any], device: torch.device) -> EpochState:
    """Return the epoch that `to_checkpoint` saved."""
    return EpochState(
        losses=list(content["losses"].to(device).unbind()),
        sizes=list(content["sizes"]),
        correct=content["right"],
        timer=PhaseTimer(content["spent"]),
        joules=content.get("joules"),  # absent in checkpoints of earlier versions
        rng_states=content["random"],
    )


def rng_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global random streams that work on this device draws from, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_rng_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `rng_states` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":  # absent if another device began the epoch
        torch.get_device_module(device).set_rng_state(states[device.type])
