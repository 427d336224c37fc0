"""An epoch under way: what its steps have come to, and what a checkpoint in its middle keeps of it."""

from dataclasses import dataclass, field
from operator import mul
from typing import Any

import torch
from torch import Tensor

from finetune.training.metering import PhaseTimer


@dataclass
class EpochState:
    """The steps of an epoch so far.

    Attributes:
        losses: each step's mean loss, label smoothing included: 0-d tensors on the device that computes.
        sizes: each step's pictures.
        right: pictures named rightly, on the device that computes.
        clock: wall time by part, from the end of the epoch before, without the gap where it was interrupted.
        joules: energy used, None where it is not measured.
        fed_from: the block that its inputs enter; above 0 where a cache holds what the blocks before make.
        random: states of torch's random streams to go on with, where a checkpoint has them.
    """

    losses: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    right: Tensor | int = 0
    clock: PhaseTimer = field(default_factory=PhaseTimer)
    joules: float | None = 0.0
    fed_from: int = 0
    random: dict[str, Tensor] | None = None

    @property
    def steps(self) -> int:
        """How many steps are done."""
        return len(self.sizes)

    def add(self, loss: Tensor, right: Tensor, size: int) -> None:
        """Add a step: its mean loss, and how many of its `size` pictures were named rightly."""
        self.losses.append(loss)
        self.sizes.append(size)
        self.right += right

    def loss(self) -> float:
        """Return the mean loss over pictures."""
        return float(sum(map(mul, torch.stack(self.losses).tolist(), self.sizes)) / sum(self.sizes))

    def accuracy(self) -> float:
        """Return the share of pictures that were named rightly."""
        return int(self.right) / sum(self.sizes)


def to_checkpoint(epoch: EpochState, device: torch.device) -> dict[str, Any]:
    """Return the epoch, and the random streams that it is to go on with, as plain values and tensors."""
    return {
        "losses": torch.stack(epoch.losses).cpu(),
        "sizes": epoch.sizes,
        "right": int(epoch.right),
        "spent": epoch.clock.spent(),
        "joules": epoch.joules,
        # What a resumed epoch has not got to use yet, stopped again while a cache was filled, say, stays.
        "random": random_state(device) if epoch.random is None else epoch.random,
    }


def from_checkpoint(kept: dict[str, Any], device: torch.device) -> EpochState:
    """Return the epoch that `keep` has kept."""
    losses = list(kept["losses"].to(device).unbind())
    return EpochState(
        losses,
        list(kept["sizes"]),
        kept["right"],
        PhaseTimer(kept["spent"]),
        kept.get("joules"),  # an earlier version's checkpoint does not tell
        random=kept["random"],
    )


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global random streams that work on this device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_random_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Put torch's global random streams back into these states."""
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":  # absent where another device began the epoch
        torch.get_device_module(device).set_rng_state(states[device.type])
