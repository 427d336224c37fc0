"""Measures how many seconds an image takes in each part of training one network, from a few steps of each.

    python -m finetune.sweep.forecast.probe '{...}'    a ProbeRequest as JSON; prints a ProbeResult as JSON

Weights are random, which cost as much as trained ones. The images are the data set's own.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.data.augmentation import train_transform
from finetune.data.images.image_io import read_image
from finetune.data.transforms import normalise, resize_for_cache, stack
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.device import autocast_of, device_of
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.unfreezing import freeze_blocks
from finetune.pretrained import Preprocessing
from finetune.training.loss import compute_logits
from finetune.training.metering import keep_freed_memory

MIN_STEPS, MAX_STEPS = 3, 20  # of each part
STEP_SECONDS = 0.3  # no more steps than MIN_STEPS once they have taken so long together
BY_CUT = ("prefix", "evaluate", "train", "update")


@dataclass(frozen=True)
class ProbeRequest:
    """The network to measure, the settings of its runs, and some images of the data set."""

    backbone: str
    preprocessing: Preprocessing
    batch_size: int
    precision: str
    device: str
    augment: str
    cuts: tuple[int, ...]  # numbers of frozen blocks, sorted, 0 first
    classes: int
    images: tuple[str, ...]  # paths


@dataclass(frozen=True)
class ProbeResult:
    """Seconds per image of each part; the dictionaries have the number of frozen blocks as key."""

    device: str  # cpu, cuda or mps
    image_bytes: float  # size of a decoded image in the cache
    decode: float  # reading a file and resizing it for the cache
    load: float  # making a view of a decoded image
    prefix: dict[int, float]  # forward pass of the frozen blocks, as the cache computes it
    evaluate: dict[int, float]  # forward pass of the other blocks
    train: dict[int, float]  # forward and backward pass of the other blocks
    update: dict[int, float]  # seconds per step of the optimizer


def request_from_json(text: str) -> ProbeRequest:
    """Return a request from its JSON."""
    fields = json.loads(text)
    settings = fields["preprocessing"]
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return ProbeRequest(**{**fields, "preprocessing": Preprocessing(**settings)})


def result_from_json(text: str) -> ProbeResult:
    """Return a result from its JSON, in which the numbers of frozen blocks are text."""
    fields = json.loads(text)
    by_cut = {name: {int(cut): seconds for cut, seconds in fields[name].items()} for name in BY_CUT}
    return ProbeResult(**{**fields, **by_cut})


def measure(request: ProbeRequest) -> ProbeResult:
    """Measure in this process, with the threads that torch has."""
    keep_freed_memory()
    device = device_of(request.device)
    autocast = autocast_of(request.precision, device)
    side = request.preprocessing.crop_px
    network = build_network(request.backbone, side)
    model = build_classifier(network, request.classes, dropout=0.2).to(device).to(memory_format=torch.channels_last)
    size = max(2, request.batch_size)
    while True:
        try:
            batch = torch.randn(size, 3, side, side, device=device).to(memory_format=torch.channels_last)
            training = _measure_training(model, batch, request.cuts, autocast)
            break
        except torch.OutOfMemoryError:  # a run continues with smaller micro-batches (see microbatch.py)
            if size <= 2:
                raise
            size = max(2, size // 2)
    forward = _measure_forward(model, batch, request.cuts, autocast)
    return ProbeResult(device=device.type, **_measure_loading(request), **training, **forward)


def _measure_loading(request: ProbeRequest) -> dict[str, Any]:
    settings, paths = request.preprocessing, [Path(name) for name in request.images]
    decoded = [resize_for_cache(read_image(path), settings) for path in paths]
    transform, cpu = train_transform(settings, request.augment), torch.device("cpu")

    def decode() -> None:
        for path in paths:
            resize_for_cache(read_image(path), settings)

    def load() -> None:
        normalise(stack([transform(image, seed) for seed, image in enumerate(decoded)]), settings)

    return {
        "image_bytes": sum(image.numel() for image in decoded) / len(paths),
        "decode": _median_seconds(decode, cpu) / len(paths),
        "load": _median_seconds(load, cpu) / len(paths),
    }


def _measure_training(
    model: Classifier, batch: torch.Tensor, cuts: Sequence[int], autocast: torch.dtype | None
) -> dict[str, Any]:
    labels = torch.zeros(len(batch), dtype=torch.int64, device=batch.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    train, update = {}, {}

    def compute_gradients(hidden: torch.Tensor, cut: int) -> None:
        model.zero_grad(set_to_none=True)
        nn.CrossEntropyLoss()(compute_logits(model, hidden, cut, autocast), labels).backward()

    for cut in cuts:
        freeze_blocks(model, cut)
        with torch.no_grad():
            hidden = model.prefix(batch, cut)
        step = partial(compute_gradients, hidden, cut)
        step()  # the first step of a process takes longer
        train[cut] = _median_seconds(step, batch.device) / len(batch)
        update[cut] = _median_seconds(optimizer.step, batch.device)
    return {"train": train, "update": update}


@torch.no_grad()
def _measure_forward(
    model: Classifier, batch: torch.Tensor, cuts: Sequence[int], autocast: torch.dtype | None
) -> dict[str, Any]:
    model.eval()
    frozen, hidden, start, seconds = FrozenPrefix(model), batch, 0, 0.0
    prefix, evaluate = {}, {}

    def run_suffix(hidden: torch.Tensor, cut: int) -> None:
        compute_logits(model, hidden, cut, autocast)

    for cut in cuts:
        if cut > start:
            seconds += _median_seconds(partial(frozen.run, hidden, start, cut), batch.device)
            hidden, start = frozen.run(hidden, start, cut), cut
        prefix[cut] = seconds / len(batch)
        evaluate[cut] = _median_seconds(partial(run_suffix, hidden, cut), batch.device) / len(batch)
    return {"prefix": prefix, "evaluate": evaluate}


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median wall time of some calls, GPU work included."""
    times: list[float] = []
    while len(times) < MIN_STEPS or (len(times) < MAX_STEPS and sum(times) < STEP_SECONDS):
        start = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.get_device_module(device).synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dataclasses.asdict(measure(request_from_json(sys.argv[1])))) + "\n")
