"""The demo's pretrained weights: a small torchvision network, trained locally on the drawn source task of the demo."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from finetune.data.demo.images import DEMO_VERSION, SOURCE_CLASSES, draw_source
from finetune.models.weights_file import save_torch_file
from finetune.system.atomic import raising_write_error, replacing
from finetune.system.checksums import quarantine, zip_fault
from finetune.system.environment import cache_folder
from finetune.system.output import SafeConsole
from finetune.system.progress_bar import progress_bar

DEMO_BACKBONE = "resnet18"  # reached in a minute an accuracy that three smaller networks did not
DEMO_IMAGE_PX = 48
DEMO_WEIGHTS_VERSION = f"demo-{DEMO_BACKBONE}-{DEMO_IMAGE_PX}px-pictures-{DEMO_VERSION}-recipe-1"

STEPS, BATCH_SIZE = 420, 32
PER_CLASS, HELD_OUT_PER_CLASS = 160, 15
# The first steps use small images, which takes 0.7 of the time per step (progressive resizing, as in
# Howard's DAWNBench entry, https://www.fast.ai/posts/2018-08-10-fastai-diu-imagenet.html).
SMALL_PX, SMALL_SHARE = 32, 0.6
PEAK_LR, WEIGHT_DECAY, LABEL_SMOOTHING = 2e-3, 0.05, 0.1
WARMUP_SHARE = 0.2
SEED = 0

# ImageNet's, as in the transforms of torchvision's weights, which the demo's weights replace.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def demo_weights_path(progress: bool = True) -> Path:
    """Return the file of the pretrained state dict; pretrains first (about a minute) if there is none.

    Args:
        progress: whether to report on stderr, with a progress bar on a terminal.
    """
    path = cache_folder() / f"{DEMO_WEIGHTS_VERSION}.pt"
    console = SafeConsole(stderr=True, quiet=not progress, soft_wrap=True, force_jupyter=False)
    if path.is_file() and zip_fault(path):
        console.print(f"{path} is damaged: renamed to {quarantine(path).name}; will be rebuilt", highlight=False)
    if not path.is_file():
        began = time.perf_counter()
        task = f"{DEMO_BACKBONE} on {len(SOURCE_CLASSES)} classes of synthetic images"
        console.print(f"Pretraining the demo's {task}, once (about a minute)", highlight=False)
        with progress_bar("drawing", hidden=not progress) as advance:
            accuracy = pretrain(path, on_progress=lambda phase, share: advance(100 * share, 100, phase))
        seconds = time.perf_counter() - began
        console.print(f"Pretrained in {seconds:.0f} s: {accuracy:.1%} correct on held-out images", highlight=False)
    return path


def pretrain(
    path: Path,
    steps: int = STEPS,
    per_class: int = PER_CLASS,
    on_progress: Callable[[str, float], None] | None = None,
) -> float:
    """Train DEMO_BACKBONE on the source task, write its state dict to `path`, and return the held-out accuracy.

    Writes the file atomically. Does not change torch's global random stream.

    Args:
        path: of the state dict, which includes the source task's classifier.
        steps: number of optimiser steps.
        per_class: number of training images of each class.
        on_progress: called with the phase and the share done, in [0, 1].
    """
    images, labels = _source(per_class, first=HELD_OUT_PER_CLASS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = torchvision.models.get_model(DEMO_BACKBONE, weights=None, num_classes=len(SOURCE_CLASSES))
        _fit(network, images, labels, steps, on_progress)
    accuracy = _accuracy(network, *_source(HELD_OUT_PER_CLASS, first=0))
    with raising_write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_torch_file(network.state_dict(), temporary)
    return accuracy


def _source(per_class: int, first: int) -> tuple[Tensor, Tensor]:
    """Return source images (N, 3, H, W) uint8 and labels (N,) int64 as tensors."""
    images, labels = draw_source(per_class, DEMO_IMAGE_PX, first)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _fit(
    network: nn.Module, images: Tensor, labels: Tensor, steps: int, on_progress: Callable[[str, float], None] | None
) -> None:
    """Train with AdamW, one cycle (Smith and Topin 2017, arXiv 1708.07120), in batches of BATCH_SIZE."""
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        fused=True,
    )
    network.train()
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < BATCH_SIZE:
            order = torch.cat([order, torch.randperm(len(images))])
        batch, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        for group in optimiser.param_groups:
            group["lr"] = PEAK_LR * _one_cycle((step + 1) / steps)
        px = SMALL_PX if step < SMALL_SHARE * steps else DEMO_IMAGE_PX
        logits = network(_normalised(_augmented(images[batch], px)))
        loss = functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if on_progress:
            on_progress("pretraining", (step + 1) / steps)


def _one_cycle(done: float) -> float:
    """Return the rate as a share of its peak: a linear rise, then half a cosine down to 0 at `done` 1."""
    if done < WARMUP_SHARE:
        return done / WARMUP_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - WARMUP_SHARE) / (1 - WARMUP_SHARE)))


def _augmented(images: Tensor, px: int) -> Tensor:
    """Return images (B, 3, px, px) float in [0, 1], each randomly flipped, rotated, scaled, shifted, recoloured."""
    count = len(images)
    turn = (torch.rand(count) - 0.5) * math.radians(30)
    scale = torch.empty(count).uniform_(0.7, 1.1)
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = torch.empty(count, 2).uniform_(-0.15, 0.15)
    rows = [scale * flip * turn.cos(), -scale * turn.sin(), scale * flip * turn.sin(), scale * turn.cos()]
    matrix = torch.cat([torch.stack(rows, dim=1).view(-1, 2, 2), shift[:, :, None]], dim=2)
    grid = functional.affine_grid(matrix, [count, 3, px, px], align_corners=False)
    moved = functional.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    # The class does not depend on colour, so any order of the channels is a valid image.
    channels = torch.rand(count, 3).argsort(dim=1)
    return moved[torch.arange(count)[:, None], channels]


def _normalised(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1], normalised by MEAN and STD."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images - mean) / std


@torch.no_grad()
def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of correctly classified images."""
    network.eval()
    correct = 0
    for start in range(0, len(images), 120):
        logits = network(_normalised(images[start : start + 120].float() / 255))
        correct += int((logits.argmax(dim=1) == labels[start : start + 120]).sum())
    return correct / len(images)
