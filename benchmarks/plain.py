"""The loop that most people write first, kept as the yardstick: torchvision, PIL, one process, float32.

It trains the pictures that a run of `finetune` trains, with the same schedule, rates and loss, and has none of its
shortcuts: pictures are decoded for every epoch, the frozen blocks are computed for every batch, memory is laid out as
torch does by default. It freezes as most loops do, by requires_grad=False under model.train(): the frozen blocks'
weights stand still, but their batch-norm statistics move and their stochastic depth stays on. Of the config's fields,
`precision`, `patience`, `views`, `start_px`, `cache`, `keep` and `upload_best` are not for it.

    python -m benchmarks.plain --data path/to/pictures --strategy full --threads 1 --out result.json
"""

import argparse
import copy
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

from benchmarks.timer import Clock, peak_memory
from finetune.config import Config, to_dict
from finetune.config_flags import add_fields, parse_flags
from finetune.data.augmentation import LEVELS
from finetune.data.splits import Sample, Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.errors import EXIT_BAD_INPUT, UserError
from finetune.models.families import split_into_blocks
from finetune.models.unfreezing import share_at, trainable_blocks
from finetune.models.weights import load_weights
from finetune.resolve import resolve
from finetune.run.preflight import load_splits
from finetune.system.documents import write_json
from finetune.system.output import fail
from finetune.training.lr_schedule import lr_multiplier

Batches = DataLoader[tuple[Tensor, Tensor]]  # images (B, 3, H, W) float32, normalised, and labels (B,) int64


class Network(nn.Module):
    """A torchvision network with a new last layer. images (B, 3, H, W) float32 -> logits (B, classes)."""

    def __init__(self, network: nn.Module, classes: int, dropout: float) -> None:
        super().__init__()
        blocks, self.pool, features = split_into_blocks(network)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)  # as in finetune.model, so that both start from the same network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.blocks(images)))
        return logits


def build(config: Config, classes: int, image_px: int) -> Network:
    """Return the backbone with its weights and a new head."""
    options = {"image_size": image_px} if config.backbone.startswith("vit") else {}
    network = models.get_model(config.backbone, weights=None, **options)
    if config.weights != "none":
        load_weights(network, config.backbone, config.weights, image_px)
    return Network(network, classes, config.dropout)


def freeze(network: Any, trainable: int, optimizer: torch.optim.Optimizer, config: Config) -> None:  # noqa: ARG001
    """Let the head and the last `trainable` blocks train, and no other; their mode is left to model.train()."""
    for number, block in enumerate(network.blocks):
        block.requires_grad_(number >= len(network.blocks) - trainable)


def train(
    config: Config,
    build: Callable[[Config, int, int], Any] = build,
    freeze: Callable[[Any, int, torch.optim.Optimizer, Config], None] = freeze,
) -> dict[str, Any]:
    """Train `config` and test it at its best val epoch; return what was measured.

    Args:
        build: makes a network with `blocks` and a `head` from config, classes and pixels.
        freeze: (network, blocks that train, optimiser, config), called before each epoch.

    Returns:
        `epochs`, a row an epoch: epoch, train/loss, val/accuracy, val/loss, and seconds as seconds/train, seconds/val
        and, inside train, seconds/loader, seconds/prefix (the frozen blocks' forward pass) and seconds/suffix (the
        rest); best/epoch, best/val_accuracy, test/accuracy, pictures by split, config, peak_rss_bytes.

    Raises:
        UserError: data or weights do not fit.
    """
    config = resolve(config)
    device = pick_device(config.device)
    splits = load_splits(config)
    to = preprocessing(config.backbone, config.weights, config.image_px)
    torch.manual_seed(config.seed)
    loaders = make_loaders(splits, to, config, device)
    network = build(config, len(splits.classes), to.crop_px).to(device)
    optimizer = torch.optim.AdamW(param_groups(network, config))
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    steps = len(loaders["train"])
    multiplier = make_multiplier(config, len(network.blocks), steps)
    clock = Clock(device)
    epochs: list[dict[str, Any]] = []
    best: tuple[tuple[float, float], dict[str, Tensor]] | None = None
    for epoch in range(config.epochs):
        freeze(network, trainable_at(config, epoch, len(network.blocks)), optimizer, config)
        unhook = clock_prefix(network.blocks, clock)
        network.train()
        total = 0.0
        clock.take()
        for step, (images, labels) in enumerate(loaders["train"], start=epoch * steps):
            clock.lap("loader")
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * multiplier(group["block"], step)
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(network(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            clock.lap("suffix")
        trained = clock.take()
        unhook()
        val_loss, val_accuracy = evaluate(network, loaders["val"], device)
        clock.lap("val")
        row = {"epoch": epoch + 1, "train/loss": total / len(splits.train)}
        row |= {"val/loss": val_loss, "val/accuracy": val_accuracy}
        row |= {"seconds/train": sum(trained.values()), "seconds/val": clock.take()["val"]}
        row |= {f"seconds/{part}": trained.get(part, 0.0) for part in ("loader", "prefix", "suffix")}
        epochs.append(row)
        print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), file=sys.stderr, flush=True)
        if best is None or (val_accuracy, -val_loss) > best[0]:
            best = (val_accuracy, -val_loss), copy.deepcopy(network.state_dict())
            best_epoch = epoch + 1
    assert best is not None, "a run has at least one epoch"
    network.load_state_dict(best[1])
    return {
        "epochs": epochs,
        "best/epoch": best_epoch,
        "best/val_accuracy": best[0][0],
        "test/accuracy": evaluate(network, loaders["test"], device)[1],
        "pictures": {name: len(getattr(splits, name)) for name in loaders},
        "device": device.type,
        "threads": torch.get_num_threads(),
        "config": to_dict(config),
        **peak_memory(device),
    }


def pick_device(wanted: str) -> torch.device:
    """Return the device; auto is a GPU where there is one."""
    return torch.device(wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def trainable_at(config: Config, epoch: int, blocks: int) -> int:
    """Return how many of the blocks, counted from the head, train once `epoch` epochs of a resolved config are done."""
    assert config.unfreeze is not None, "resolve() fills the schedule"
    return trainable_blocks(share_at(config.unfreeze, epoch), blocks)


def make_multiplier(config: Config, blocks: int, steps: int) -> Callable[[int | None, int], float]:
    """Return (block or None for the head, step) -> factor on the peak rate, for a resolved config."""
    assert config.unfreeze is not None, "resolve() fills the schedule"
    return lr_multiplier(blocks, config.unfreeze, steps, config.epochs, config.warmup_epochs, config.rewarm_epochs)


def make_loaders(splits: Splits, to: Preprocessing, config: Config, device: torch.device) -> dict[str, Batches]:
    """Return the loaders of train, val and test: PIL decodes and transforms every picture, every time."""
    interpolation = transforms.InterpolationMode(to.interpolation)
    normalise = [transforms.ToTensor(), transforms.Normalize(to.mean, to.std)]
    centre = [transforms.Resize(to.resize_px, interpolation), transforms.CenterCrop(to.crop_px)]
    augment = [
        transforms.RandomResizedCrop(to.crop_px, LEVELS["standard"].crop_scale, interpolation=interpolation),
        transforms.RandomHorizontalFlip(),
    ]
    workers = config.loader_workers
    if workers is None:
        workers = 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 2) - 1))

    def loader(pictures: Sequence[Sample], steps: list[Any], shuffle: bool) -> Batches:
        folder = ImageFolder(str(splits.root), transforms.Compose(steps + normalise), allow_empty=True)
        folder.samples = [(str(splits.root / picture.path), picture.label) for picture in pictures]
        return DataLoader(
            folder, config.batch_size, shuffle=shuffle, num_workers=workers, pin_memory=device.type == "cuda"
        )

    return {
        "train": loader(splits.train, augment if config.augment == "standard" else centre, shuffle=True),
        "val": loader(splits.val, centre, shuffle=False),
        "test": loader(splits.test, centre, shuffle=False),
    }


def param_groups(network: Any, config: Config) -> list[dict[str, Any]]:
    """Return AdamW's groups: the head at `lr`, the blocks at `backbone_lr`, 1-D parameters without weight decay."""
    parts: list[tuple[int | None, nn.Module, float]] = [(None, network.head, config.lr)]
    if config.backbone_lr is not None:
        last = len(network.blocks) - 1
        for index, block in enumerate(network.blocks):
            parts.append((index, block, config.backbone_lr * config.block_decay ** (last - index)))
    groups = []
    for number, module, peak in parts:
        for decay, flat in ((config.weight_decay, False), (0.0, True)):
            some = [parameter for parameter in module.parameters() if (parameter.ndim <= 1) == flat]
            groups.append({"params": some, "lr": peak, "peak_lr": peak, "block": number, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def clock_prefix(blocks: Iterable[nn.Module], clock: Clock) -> Callable[[], None]:
    """Have the end of the last frozen block's forward pass call a lap; return the function that undoes it."""
    frozen = list(takewhile(lambda block: not any(p.requires_grad for p in block.parameters()), blocks))
    if not frozen:
        return lambda: None
    return frozen[-1].register_forward_hook(lambda *_: clock.lap("prefix")).remove


@torch.no_grad()
def evaluate(network: nn.Module, loader: Batches, device: torch.device) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy."""
    network.eval()
    loss, right, count = 0.0, 0, 0
    for images, labels in loader:
        logits, labels = network(images.to(device)), labels.to(device)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


def main(arguments: list[str]) -> int:
    """Train one config from the command line and write what was measured; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.plain", description="The plain loop.", allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=1, help="threads that torch computes with (default: 1)")
    parser.add_argument("--out", type=Path, required=True, help="where to write the result, JSON")
    add_fields(parser)
    try:
        known, config = parse_flags(parser, arguments)
        torch.set_num_threads(known.threads)
        result = train(config)
    except UserError as error:
        return fail(error, EXIT_BAD_INPUT)
    known.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(known.out, result)
    print(f"best val {result['best/val_accuracy']:.1%} after epoch {result['best/epoch']}, ", end="")
    print(f"test {result['test/accuracy']:.1%}; see {known.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
