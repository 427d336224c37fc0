"""The loop that most people write first, kept as the yardstick: torchvision, PIL, one process, float32.

It trains on the images that a run of `finetune` trains on, with the same schedule, rates and loss, and has none of its
shortcuts: images are decoded in every epoch, the frozen blocks are computed for every batch, memory is laid out as
torch does by default. It freezes as most loops do, by requires_grad=False under model.train(): the frozen blocks'
weights stay, but their batch-norm statistics change and their stochastic depth stays on. It ignores the config's
`precision`, `patience`, `views`, `start_px`, `cache`, `keep` and `upload_best`.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.meters import LapTimer, peak_memory
from finetune.config import Config, to_dict
from finetune.data.augmentation import LEVELS
from finetune.data.splits import Splits
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.device import device_of
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.models.weights import load_weights
from finetune.pretrained import Preprocessing, preprocessing_of
from finetune.resolve import resolve
from finetune.run.preflight import load_splits
from finetune.training.lr_schedule import lr_multiplier
from finetune.training.optimizer import ParamGroups, param_groups

Batches = DataLoader[tuple[Tensor, Tensor]]  # images (B, 3, H, W) float32, normalised, and labels (B,) int64
RateMultiplier = Callable[[int | None, int], float]


@dataclass(frozen=True)
class Setup:
    """What every loop starts from, this one and the peers': the same images, transforms and seed."""

    config: Config  # resolved
    device: torch.device
    splits: Splits
    preprocessing: Preprocessing

    def schedule(self, network: Any) -> UnfreezeSchedule:
        """Return how many of the network's blocks train when."""
        return UnfreezeSchedule.of(self.config, len(network.blocks))

    def rate_multiplier(self, network: Any, steps: int) -> RateMultiplier:
        """Return (block or None for the head, step) -> factor on the peak rate, for epochs of so many steps."""
        config = self.config
        return lr_multiplier(self.schedule(network), steps, config.epochs, config.warmup_epochs, config.rewarm_epochs)


def set_up(config: Config) -> Setup:
    """Return the set-up of a config, and seed torch.

    Raises:
        UserError: data or weights do not fit.
    """
    config = resolve(config)
    splits = load_splits(config)
    shape = preprocessing_of(config.backbone, config.weights, config.image_px)
    torch.manual_seed(config.seed)
    return Setup(config, device_of(config.device), splits, shape)


def build(config: Config, classes: int, image_px: int) -> Classifier:
    """Return torchvision's network with its weights and a new head."""
    network = build_network(config.backbone, image_px)
    if config.weights != "none":
        load_weights(network, config.backbone, config.weights, image_px)
    return build_classifier(network, classes, config.dropout)


def freeze(network: Any, cut: int, optimizer: torch.optim.Optimizer, config: Config) -> None:  # noqa: ARG001
    """Freeze the first `cut` blocks and let all others train; their mode is left to model.train()."""
    for number, block in enumerate(network.blocks):
        block.requires_grad_(number >= cut)


def train(
    config: Config,
    build: Callable[[Config, int, int], Any] = build,
    freeze: Callable[[Any, int, torch.optim.Optimizer, Config], None] = freeze,
) -> dict[str, Any]:
    """Train `config` and test it at its best val epoch; return the measurements.

    Args:
        build: makes a network with `blocks` and a `head` from config, classes and pixels.
        freeze: (network, number of frozen blocks, optimiser, config), called before each epoch.

    Returns:
        `epochs`, a row for each: epoch, train/loss, val/accuracy, val/loss, and seconds as seconds/train, seconds/val
        and, inside train, seconds/loader, seconds/prefix (forward pass of the frozen blocks) and seconds/suffix (the
        rest); best/epoch, best/val_accuracy, test/accuracy, images by split, config, peak_rss_bytes.

    Raises:
        UserError: data or weights do not fit.
    """
    setup = set_up(config)
    config, device = setup.config, setup.device
    loaders = make_loaders(setup)
    network = build(config, len(setup.splits.classes), setup.preprocessing.crop_px).to(device)
    optimizer = torch.optim.AdamW(make_groups(network, config))
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    schedule, steps = setup.schedule(network), len(loaders["train"])
    multiplier, timer = setup.rate_multiplier(network, steps), LapTimer(device)
    best_score, best_state = (-1.0, 0.0), {}
    for epoch in range(config.epochs):
        freeze(network, schedule.cut(epoch), optimizer, config)
        batches = enumerate(loaders["train"], start=epoch * steps)
        loss = train_epoch(network, batches, optimizer, criterion, multiplier, timer)
        val_loss, val_accuracy = evaluate(network, loaders["val"], device)
        timer.lap("val")
        row = timer.end_epoch(**{"train/loss": loss, "val/loss": val_loss, "val/accuracy": val_accuracy})
        row.setdefault("seconds/prefix", 0.0)
        row["seconds/train"] = sum(row[f"seconds/{part}"] for part in ("loader", "prefix", "suffix"))
        if (val_accuracy, -val_loss) > best_score:
            best_score, best_epoch = (val_accuracy, -val_loss), epoch + 1
            best_state = copy.deepcopy(network.state_dict())
    network.load_state_dict(best_state)
    return {
        "epochs": timer.epochs,
        "best/epoch": best_epoch,
        "best/val_accuracy": best_score[0],
        "test/accuracy": evaluate(network, loaders["test"], device)[1],
        "pictures": {name: len(getattr(setup.splits, name)) for name in loaders},
        "device": device.type,
        "threads": torch.get_num_threads(),
        "config": to_dict(config),
        **peak_memory(device),
    }


def train_epoch(
    network: Any,
    batches: Iterable[tuple[int, tuple[Tensor, Tensor]]],
    optimizer: torch.optim.Optimizer,
    criterion: nn.Module,
    multiplier: RateMultiplier,
    timer: LapTimer,
) -> float:
    """Train on (step, batch) pairs; return the mean loss."""
    device = next(network.parameters()).device
    network.train()
    total, count = 0.0, 0
    with timed_prefix(network.blocks, timer):
        timer.restart()
        for step, (images, labels) in batches:
            timer.lap("loader")
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * multiplier(group["block"], step)
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            count += len(labels)
            timer.lap("suffix")
    return total / count


@contextlib.contextmanager
def timed_prefix(blocks: Iterable[nn.Module], timer: LapTimer) -> Iterator[None]:
    """Have the end of the last frozen block's forward pass call a lap within the block."""
    frozen = list(takewhile(lambda block: not any(p.requires_grad for p in block.parameters()), blocks))
    hooks = [block.register_forward_hook(lambda *_: timer.lap("prefix")) for block in frozen[-1:]]
    yield
    for hook in hooks:
        hook.remove()


def make_loaders(setup: Setup) -> dict[str, Batches]:
    """Return the loaders of train, val and test: PIL decodes and transforms every image, every time."""
    config, shape = setup.config, setup.preprocessing
    interpolation = transforms.InterpolationMode(shape.interpolation)
    centre = [transforms.Resize(shape.resize_px, interpolation), transforms.CenterCrop(shape.crop_px)]
    augment = [
        transforms.RandomResizedCrop(shape.crop_px, LEVELS["standard"].crop_scale, interpolation=interpolation),
        transforms.RandomHorizontalFlip(),
    ]
    workers = config.loader_workers
    if workers is None:
        workers = 0 if setup.device.type == "cpu" else min(8, max(1, (os.cpu_count() or 2) - 1))

    def loader(split: str) -> Batches:
        steps = augment if split == "train" and config.augment == "standard" else centre
        normalise = [transforms.ToTensor(), transforms.Normalize(shape.mean, shape.std)]
        folder = ImageFolder(str(setup.splits.root), transforms.Compose([*steps, *normalise]), allow_empty=True)
        samples = getattr(setup.splits, split)
        folder.samples = [(str(setup.splits.root / sample.path), sample.label) for sample in samples]
        pin = setup.device.type == "cuda"
        return DataLoader(folder, config.batch_size, shuffle=split == "train", num_workers=workers, pin_memory=pin)

    return {split: loader(split) for split in ("train", "val", "test")}


def make_groups(network: Any, config: Config) -> ParamGroups:
    """Return the optimiser's param groups, with the peak rates of a run."""
    return param_groups(network, config.lr, config.backbone_lr, config.block_decay, config.weight_decay)


@torch.no_grad()
def evaluate(network: nn.Module, loader: Batches, device: torch.device) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy."""
    network.eval()
    loss, correct, count = 0.0, 0, 0
    for images, labels in loader:
        logits, labels = network(images.to(device)), labels.to(device)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, correct / count
