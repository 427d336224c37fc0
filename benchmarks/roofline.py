"""The floor: the time that an epoch's convolutions and matrix products take at this machine's best measured speed."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from benchmarks import plain
from finetune.config import Config
from finetune.data.transforms import preprocessing
from finetune.models.classifier import build_classifier, build_network
from finetune.models.flops import forward_flops
from finetune.resolve import resolve

SECONDS = 0.2  # of each measurement; the best of REPEATS counts
REPEATS = 8
# Large enough to be bound by arithmetic: the side of square matrices, and (batch, channels, side) of 3x3 convolutions.
MATRIX = {"cpu": 1536, "cuda": 8192, "mps": 4096}
CONVOLUTION = {"cpu": (16, 128, 28), "cuda": (128, 512, 56), "mps": (32, 256, 28)}
Computation = tuple[Callable[[], object], int]  # what computes, and its FLOPs

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure_peaks(device: torch.device) -> dict[str, float]:
    """Return FLOP/s by precision (fp32, bf16), the faster of a matrix product and a 3x3 convolution.

    With torch's defaults: on a GPU, convolutions in fp32 may use TF32.
    """
    made = {name: [make(device, dtype) for make in (_matrix_product, _convolution)] for name, dtype in DTYPES.items()}
    peaks = dict.fromkeys(DTYPES, 0.0)
    for _ in range(REPEATS):  # in turns: what else the machine does changes from second to second
        for name, computations in made.items():
            for compute, flops in computations:
                peaks[name] = max(peaks[name], flops / _seconds(compute, device))
    return peaks


def floor_seconds(flops: Sequence[int], cuts: Sequence[int], train: int, val: int, peak: float) -> float:
    """Return the least seconds of a run at `peak` FLOP/s, val after each epoch included.

    Args:
        flops: forward FLOPs of one picture in each block, as `model.forward_flops` returns them.
        cuts: how many blocks are frozen, for each epoch. Their forward pass counts once a picture and epoch.
        train: training pictures.
        val: val pictures; theirs is a forward pass.
    """
    total = sum(train * training_flops(flops, len(flops) - cut) + val * sum(flops) for cut in cuts)
    return total / peak


def training_flops(flops: Sequence[int], trainable: int) -> int:
    """Return the FLOPs of training on one picture: the frozen blocks' forward pass and three times the others'.

    A backward pass through a block costs two forward passes, for the gradients of its weights and of its input. That
    the first trainable block needs no gradient of its input is left out.
    """
    cut = len(flops) - trainable
    return sum(flops[:cut]) + 3 * sum(flops[cut:])


def work(config: Config) -> tuple[list[int], list[int]]:
    """Return (flops, cuts) of a config, as `floor_seconds` takes them."""
    config = resolve(config)
    side = preprocessing(config.backbone, config.weights, config.image_px).crop_px
    model = build_classifier(build_network(config.backbone, side), 2, 0.0)
    flops = forward_flops(model, side)
    return flops, [len(flops) - plain.trainable_at(config, epoch, len(flops)) for epoch in range(config.epochs)]


def _matrix_product(device: torch.device, dtype: torch.dtype) -> Computation:
    side = MATRIX[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3


def _convolution(device: torch.device, dtype: torch.dtype) -> Computation:
    batch, channels, side = CONVOLUTION[device.type]
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)
    pictures = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    pictures = pictures.to(memory_format=torch.channels_last)
    return lambda: layer(pictures), 2 * 9 * channels**2 * side**2 * batch


@torch.inference_mode()
def _seconds(compute: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one of many calls."""

    def calls(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            compute()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        return time.perf_counter() - start

    once = min(calls(1), calls(1))  # the very first prepares kernels
    count = max(1, round(SECONDS / max(once, 1e-6)))
    return calls(count) / count
