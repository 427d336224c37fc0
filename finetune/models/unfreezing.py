"""Which blocks of the backbone train at an epoch; the only definition of "frozen".

A strategy is a schedule: after so many epochs, this share of the backbone's blocks, counted from the head, trains.
Everything here is a pure function of the schedule and the epoch, so a resumed run is the same run.
"""

from dataclasses import dataclass

from finetune.config import Config, Schedule
from finetune.models.classifier import Classifier


def trainable_blocks(share: float, blocks: int) -> int:
    """Return the number of blocks of a share of `blocks`, rounded to the nearest; a half rounds up."""
    return int(share * blocks + 0.5)


@dataclass(frozen=True)
class UnfreezeSchedule:
    """What trains at each epoch. `epoch` counts finished epochs: 0 is the first one.

    Attributes:
        steps: (epochs finished, share of the blocks that trains from then on); shares never fall.
        blocks: number of blocks of the backbone.
    """

    steps: Schedule
    blocks: int

    @classmethod
    def of(cls, config: Config, blocks: int) -> "UnfreezeSchedule":
        """Return the schedule of a resolved config."""
        assert config.unfreeze is not None, "resolve() fills the schedule"
        return cls(config.unfreeze, blocks)

    @property
    def last_step(self) -> int:
        """Epochs finished when the schedule takes its last step."""
        return self.steps[-1][0]

    @property
    def final_cut(self) -> int:
        """Number of blocks that never train."""
        return self.cut(self.last_step)

    def cut(self, epoch: int) -> int:
        """Return the number of frozen blocks, which is also the index of the first block that trains."""
        return self.blocks - self.trainable(epoch)

    def trainable(self, epoch: int) -> int:
        """Return the number of blocks that train, counted from the head."""
        return trainable_blocks([share for start, share in self.steps if start <= epoch][-1], self.blocks)

    def share(self, epoch: int) -> float:
        """Return the share of the blocks that trains."""
        return self.trainable(epoch) / self.blocks

    def first_epoch(self, block: int) -> int | None:
        """Return after how many epochs this block begins to train, or None if it never does."""
        return next((epoch for epoch, _ in self.steps if block >= self.cut(epoch)), None)


def freeze_blocks(model: Classifier, cut: int) -> None:
    """Freeze the first `cut` blocks; train the others and the head.

    Nothing in a frozen block changes: its parameters have requires_grad=False, and it is in eval mode, which keeps
    batch-norm statistics and turns off dropout and stochastic depth. Call it in every epoch: model.train() undoes it.
    """
    model.train()
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= cut)
        block.train(index >= cut)
