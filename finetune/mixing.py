"""MixUp and CutMix: training pictures that are blended in pairs, or pasted into each other, with their labels."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from finetune.seeds import seeded_rng


def mix(images: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return a batch mixed with itself moved on by one, and what share of which class is in each picture.

    MixUp (Zhang et al., arXiv 1710.09412) adds up the two pictures, CutMix (Yun et al., arXiv 1905.04899) pastes a
    rectangle of one into the other; both by torchvision. The batch has one share for all of its pictures, drawn from
    Beta(alpha, alpha). The seed decides alone, and torch's own streams are left as they are.

    Args:
        images: (B, 3, H, W) float32, normalised, channels last.
        labels: (B,) int64.
        mixup, cutmix: their alphas, 0 for not at all; if both are on, a batch gets either, with equal chances.

    Returns:
        images as before, and targets (B, classes) float32 whose rows add up to 1.
    """
    mixers = [
        kind(alpha=alpha, num_classes=classes) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha
    ]
    with seeded_rng(seed):
        mixed, targets = v2.RandomChoice(mixers)(images, labels)
    return mixed.contiguous(memory_format=torch.channels_last), targets
