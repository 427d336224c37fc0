"""fastai's Learner on the same pictures and network, with fastai's own loading, optimiser and one-cycle schedule."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from benchmarks.timer import Clock, peak_memory
from finetune.config import Config
from finetune.data.augmentation import LEVELS
from finetune.data.splits import Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.resolve import resolve
from finetune.run.preflight import load_splits


class Timer(Callback):  # type: ignore[misc]
    """Notes the seconds of training and val of each epoch, and val's accuracy."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.rows: list[dict[str, Any]] = []

    def before_train(self) -> None:
        self.clock.take()

    def after_train(self) -> None:
        self.clock.lap("train")

    def after_validate(self) -> None:
        self.clock.lap("val")
        seconds = {f"seconds/{part}": value for part, value in self.clock.take().items()}
        self.rows.append({"epoch": len(self.rows) + 1, **seconds})


def train(config: Config, train_bn: bool) -> dict[str, Any]:
    """Train `config`; return `epochs` with seconds/train, seconds/val and val/accuracy, and the peak memory.

    Args:
        train_bn: fastai's default, True, trains the frozen part's batch-norms; backward passes then go through all.

    Raises:
        UserError: data or weights do not fit.
    """
    config = resolve(config)
    assert config.unfreeze is not None, "resolve() fills the schedule"
    device = plain.pick_device(config.device)
    splits = load_splits(config)
    to = preprocessing(config.backbone, config.weights, config.image_px)
    torch.manual_seed(config.seed)
    network = plain.build(config, len(splits.classes), to.crop_px)
    count = len(network.blocks)
    # Param groups end where the schedule cuts; the head has its own.
    cuts = sorted({count - plain.trainable_at(config, epoch, count) for epoch, _ in config.unfreeze} | {0, count})

    def groups(network: plain.Network) -> list[list[nn.Parameter]]:
        pairs = itertools.pairwise(cuts)
        return [list(network.blocks[start:end].parameters()) for start, end in pairs] + [
            list(network.head.parameters())
        ]

    timer = Timer(Clock(device))
    learner = Learner(
        _loaders(splits, to, config, device),
        network.to(device),
        loss_func=CrossEntropyLossFlat(label_smoothing=config.label_smoothing),
        metrics=accuracy,
        splitter=groups,
        wd=config.weight_decay,
        train_bn=train_bn,
        cbs=timer,
    )
    rates = [config.backbone_lr or config.lr] * (len(cuts) - 1) + [config.lr]
    starts = [epoch for epoch, _ in config.unfreeze]
    values: list[float] = []
    with learner.no_bar(), learner.no_logging():
        for start, end in zip(starts, [*starts[1:], config.epochs], strict=True):
            learner.freeze_to(cuts.index(count - plain.trainable_at(config, start, count)))
            learner.fit_one_cycle(end - start, lr_max=np.array(rates))
            values += [float(row[-1]) for row in learner.recorder.values]
    rows = [{**row, "val/accuracy": value} for row, value in zip(timer.rows, values, strict=True)]
    return {"epochs": rows, **peak_memory(device)}


def _loaders(splits: Splits, to: Preprocessing, config: Config, device: torch.device) -> Any:
    """Return fastai's loaders of train and val; the last, smaller batch is kept, which fastai's default drops."""
    pictures = [*splits.train, *splits.val]

    def path(number: int) -> Path:
        return splits.root / pictures[number].path

    def label(number: int) -> str:
        return splits.classes[pictures[number].label]

    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(splits.classes), sort=False)),
        get_items=lambda _: list(range(len(pictures))),
        get_x=path,
        get_y=label,
        splitter=IndexSplitter(list(range(len(splits.train), len(pictures)))),
        item_tfms=RandomResizedCrop(to.crop_px, min_scale=LEVELS["standard"].crop_scale[0]),
        batch_tfms=[Flip(), Normalize.from_stats(to.mean, to.std)],
    )
    workers = config.loader_workers if config.loader_workers is not None else 0 if device.type == "cpu" else None
    return block.dataloaders(splits.root, bs=config.batch_size, drop_last=False, device=device, num_workers=workers)
