"""fastai's Learner on the same images and network, with fastai's own loading, optimiser and one-cycle schedule."""

import itertools
from typing import Any

import numpy as np
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    Flip,
    ImageBlock,
    IndexSplitter,
    Learner,
    Normalize,
    RandomResizedCrop,
    accuracy,
)
from torch import nn

from benchmarks import plain
from benchmarks.meters import LapTimer, peak_memory
from finetune.config import Config
from finetune.data.augmentation import LEVELS
from finetune.models.classifier import Classifier


class TimerCallback(Callback):  # type: ignore[misc]
    """Notes the seconds of training and val of each epoch."""

    def __init__(self, timer: LapTimer) -> None:
        super().__init__()
        self.timer = timer

    def before_train(self) -> None:
        self.timer.restart()

    def after_train(self) -> None:
        self.timer.lap("train")

    def after_validate(self) -> None:
        self.timer.lap("val")
        self.timer.end_epoch()


def train(config: Config, train_bn: bool) -> dict[str, Any]:
    """Train `config`; return `epochs` with seconds/train, seconds/val and val/accuracy, and the peak memory.

    Args:
        train_bn: fastai's default, True, trains the batch-norms of the frozen blocks; the backward pass then goes
            through all blocks.

    Raises:
        UserError: data or weights do not fit.
    """
    setup = plain.set_up(config)
    config = setup.config
    network = plain.build(config, len(setup.splits.classes), setup.preprocessing.crop_px)
    schedule = setup.schedule(network)
    # Param groups end where the schedule cuts; the head has its own.
    bounds = sorted({schedule.cut(epoch) for epoch, _ in schedule.steps} | {0, len(network.blocks)})

    def split(network: Classifier) -> list[list[nn.Parameter]]:
        groups = [network.blocks[start:end] for start, end in itertools.pairwise(bounds)]
        return [list(group.parameters()) for group in (*groups, network.head)]

    timer = LapTimer(setup.device)
    learner = Learner(
        _make_loaders(setup),
        network.to(setup.device),
        loss_func=CrossEntropyLossFlat(label_smoothing=config.label_smoothing),
        metrics=accuracy,
        splitter=split,
        wd=config.weight_decay,
        train_bn=train_bn,
        cbs=TimerCallback(timer),
    )
    rates = [config.backbone_lr or config.lr] * (len(bounds) - 1) + [config.lr]
    starts = [epoch for epoch, _ in schedule.steps]
    accuracies: list[float] = []
    with learner.no_bar(), learner.no_logging():
        for start, end in zip(starts, [*starts[1:], config.epochs], strict=True):
            learner.freeze_to(bounds.index(schedule.cut(start)))
            learner.fit_one_cycle(end - start, lr_max=np.array(rates))
            accuracies += [float(row[-1]) for row in learner.recorder.values]
    rows = [{**row, "val/accuracy": value} for row, value in zip(timer.epochs, accuracies, strict=True)]
    return {"epochs": rows, **peak_memory(setup.device)}


def _make_loaders(setup: plain.Setup) -> Any:
    """Return fastai's loaders of train and val; the last, smaller batch is kept, which fastai's default drops."""
    splits, shape, config = setup.splits, setup.preprocessing, setup.config
    samples = [*splits.train, *splits.val]
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(splits.classes), sort=False)),
        get_items=lambda _: list(range(len(samples))),
        get_x=lambda number: splits.root / samples[number].path,
        get_y=lambda number: splits.classes[samples[number].label],
        splitter=IndexSplitter(list(range(len(splits.train), len(samples)))),
        item_tfms=RandomResizedCrop(shape.crop_px, min_scale=LEVELS["standard"].crop_scale[0]),
        batch_tfms=[Flip(), Normalize.from_stats(shape.mean, shape.std)],
    )
    workers = 0 if setup.device.type == "cpu" and config.loader_workers is None else config.loader_workers
    return block.dataloaders(
        splits.root, bs=config.batch_size, drop_last=False, device=setup.device, num_workers=workers
    )
