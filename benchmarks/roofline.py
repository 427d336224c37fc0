"""The roofline: the time of an epoch's convolutions and matrix products at this machine's best measured speed."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from finetune.config import Config
from finetune.models.classifier import build_classifier, build_network
from finetune.models.flops import forward_flops
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.pretrained import preprocessing_of
from finetune.resolve import resolve

SECONDS = 0.2  # of each measurement; the best of REPEATS counts
REPEATS = 8
SLOW_SECONDS = 1.0  # a longer call is measured once: the device emulates the precision
# Large enough to be bound by arithmetic: the side of square matrices, and (batch, channels, side) of 3x3 convolutions.
MATRIX = {"cpu": 1536, "cuda": 8192, "mps": 4096}
CONVOLUTION = {"cpu": (16, 128, 28), "cuda": (128, 512, 56), "mps": (32, 256, 28)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Computation = tuple[Callable[[], object], int]  # the function to call, and its FLOPs


def measure_peaks(device: torch.device) -> dict[str, float]:
    """Return FLOP/s by precision (fp32, bf16), the faster of a matrix product and a 3x3 convolution.

    With torch's defaults: on a GPU, convolutions in fp32 may use TF32.
    """
    computations = {
        name: [_matrix_product(device, dtype), _convolution(device, dtype)] for name, dtype in DTYPES.items()
    }
    peaks = dict.fromkeys(DTYPES, 0.0)
    for _ in range(REPEATS):  # in turns, as the load of the machine changes from second to second
        for name in DTYPES:
            for compute, flops in list(computations[name]):
                seconds = _seconds(compute, device)
                peaks[name] = max(peaks[name], flops / seconds)
                if seconds > SLOW_SECONDS:
                    computations[name].remove((compute, flops))
    return peaks


def floor_seconds(flops: Sequence[int], cuts: Sequence[int], train: int, val: int, peak: float) -> float:
    """Return the least seconds of a run at `peak` FLOP/s, val after each epoch included.

    Args:
        flops: forward FLOPs of one image in each block, see `forward_flops`.
        cuts: number of frozen blocks in each epoch. Their forward pass counts once for each image and epoch.
        train: training images.
        val: val images, of which each takes a forward pass.
    """
    total = sum(train * training_flops(flops, cut) + val * sum(flops) for cut in cuts)
    return total / peak


def training_flops(flops: Sequence[int], cut: int) -> int:
    """Return the FLOPs of training on one image: the frozen blocks' forward pass and three times that of the others.

    A backward pass through a block costs two forward passes, for the gradients of its weights and of its input. That
    the first trainable block needs no gradient of its input is left out.
    """
    return sum(flops[:cut]) + 3 * sum(flops[cut:])


def work(config: Config) -> tuple[list[int], list[int]]:
    """Return (flops, cuts) of a config, as `floor_seconds` takes them."""
    config = resolve(config)
    side = preprocessing_of(config.backbone, config.weights, config.image_px).crop_px
    flops = forward_flops(build_classifier(build_network(config.backbone, side), 2, 0.0), side)
    schedule = UnfreezeSchedule.of(config, len(flops))
    return flops, [schedule.cut(epoch) for epoch in range(config.epochs)]


def _matrix_product(device: torch.device, dtype: torch.dtype) -> Computation:
    side = MATRIX[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3


def _convolution(device: torch.device, dtype: torch.dtype) -> Computation:
    batch, channels, side = CONVOLUTION[device.type]
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype)
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(batch, channels, side, side, device=device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)
    return lambda: layer(images), 2 * 9 * channels**2 * side**2 * batch


@torch.inference_mode()
def _seconds(compute: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, the mean of many."""

    def time_calls(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            compute()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        return time.perf_counter() - start

    once = time_calls(1)  # also prepares kernels
    if once > SLOW_SECONDS:
        return once
    once = min(once, time_calls(1))
    count = max(1, round(SECONDS / max(once, 1e-6)))
    return time_calls(count) / count
