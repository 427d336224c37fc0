"""How fast this machine trains one network: seconds a picture of every part of the work, from a few steps of each.

python -m finetune.sweep.forecast.probe    # a `Wanted` as JSON on standard input, a `Speed` as JSON on standard output

The network has random weights, which cost as much as trained ones. The pictures are the data's own.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from finetune.data.augmentation import LEVELS, train_transform
from finetune.data.image_io import read_image
from finetune.data.transforms import Preprocessing, eval_transform, normalise, preprocessing, resize_for_cache, stack
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.unfreezing import freeze_blocks, trainable_blocks
from finetune.run.build import autocast_of, device_of
from finetune.system.environment import cache_folder
from finetune.training.metering import keep_freed_memory

# On the CPU a picture costs nearly the same in batches of 8 and of 32 (EfficientNetV2-S, 224 px), and a step of 8 is
# soon over. A GPU is measured at the batch size that is asked for.
CPU_BATCH = 8
LEAST_STEPS, MOST_STEPS = 3, 20
STEP_SECONDS = 0.3  # per part that is measured: more steps than the fewest, as long as they take less together
WRITTEN_BYTES = 32 * 2**20


@dataclass(frozen=True)
class ProbeRequest:
    """What to measure.

    Attributes:
        shares: of the backbone's blocks that train, each of them at some epoch of some run.
        root: the data's folder; `pictures` are paths in it.
        classes: of the data.
    """

    backbone: str
    weights: str
    image_px: int | None
    batch_size: int
    precision: str
    device: str
    shares: tuple[float, ...]
    classes: int
    root: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class ProbeResult:
    """What was measured, in seconds a picture where nothing else is said.

    Those of the network are by cut, as in `Classifier.prefix`: the number of frozen blocks.

    Attributes:
        device: cpu, cuda or mps.
        blocks: of the backbone.
        parameters: of the network, head included.
        picture_bytes: of a decoded picture as the cache keeps it.
        decode: reading a file, up to what the cache keeps.
        augment: a random view of that, normalised, by level of augmentation.
        crop: its middle, normalised.
        prefix: forward to the cut as it is computed for the cache.
        evaluate: forward from the cut to the end, without gradients.
        train: forward and backward from the cut.
        update: the optimiser's, seconds a step.
        trainable: parameters from the cut on.
        row_bytes: of what enters block `cut`, in float16.
        first_step: what the first training step of a process takes beyond those after it.
        write: seconds a byte, to the disk of the cache.
    """

    device: str
    blocks: int
    parameters: int
    picture_bytes: float
    decode: float
    augment: dict[str, float]
    crop: float
    prefix: dict[int, float]
    evaluate: dict[int, float]
    train: dict[int, float]
    update: dict[int, float]
    trainable: dict[int, int]
    row_bytes: dict[int, int]
    first_step: float
    write: float


BY_CUT = ("prefix", "evaluate", "train", "update", "trainable", "row_bytes")


def measure(wanted: ProbeRequest) -> ProbeResult:
    """Measure in this process, with the threads that torch has."""
    keep_freed_memory()
    device = device_of(wanted.device)
    autocast = autocast_of(wanted.precision, device)
    to = preprocessing(wanted.backbone, wanted.weights, wanted.image_px)
    network = build_network(wanted.backbone, to.crop_px)
    model = build_classifier(network, wanted.classes, dropout=0.2)
    model = model.to(device).to(memory_format=torch.channels_last)
    blocks = len(model.blocks)
    cuts = sorted({0} | {blocks - trainable_blocks(share, blocks) for share in wanted.shares})
    size = max(2, min(wanted.batch_size, CPU_BATCH) if device.type == "cpu" else wanted.batch_size)
    while True:
        try:
            batch = torch.randn(size, 3, to.crop_px, to.crop_px, device=device).to(memory_format=torch.channels_last)
            training = _training(model, batch, cuts, autocast)
            break
        except torch.OutOfMemoryError:  # a run goes on with smaller pieces, too (see microbatch.py)
            if size <= 2:
                raise
            size = max(2, size // 2)
    return ProbeResult(
        device=device.type,
        blocks=blocks,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        **_loading(wanted, to),
        **training,
        **_forward(model, batch, cuts, autocast),
        trainable={cut: _count(model.head) + sum(map(_count, model.blocks[cut:])) for cut in cuts},
        write=_write_seconds(),
    )


def to_json(value: ProbeRequest | ProbeResult) -> str:
    """Return it as a line of JSON."""
    return json.dumps(dataclasses.asdict(value))


def request_from(text: str) -> ProbeRequest:
    """Return what `to_json` has written."""
    fields = json.loads(text)
    return ProbeRequest(**{**fields, "shares": tuple(fields["shares"]), "pictures": tuple(fields["pictures"])})


def result_from(text: str) -> ProbeResult:
    """Return what `to_json` has written; JSON knows no whole numbers as keys."""
    fields = json.loads(text)
    return ProbeResult(
        **{**fields, **{name: {int(cut): value for cut, value in fields[name].items()} for name in BY_CUT}}
    )


def mean(speeds: Sequence[ProbeResult]) -> ProbeResult:
    """Return the mean of the same measured by several processes at once."""
    first = speeds[0]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(ProbeResult):
        one = getattr(first, field.name)
        if field.name in ("trainable", "row_bytes") or isinstance(one, str | int):
            values[field.name] = one  # the same in all of them
        elif isinstance(one, dict):
            values[field.name] = {
                cut: statistics.fmean(getattr(speed, field.name)[cut] for speed in speeds) for cut in one
            }
        else:
            values[field.name] = statistics.fmean(getattr(speed, field.name) for speed in speeds)
    return ProbeResult(**values)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _loading(wanted: ProbeRequest, to: Preprocessing) -> dict[str, Any]:
    """Return the costs of pictures up to the batch, and the size of a decoded one."""
    paths = [Path(wanted.root) / name for name in wanted.pictures]
    bases = [resize_for_cache(read_image(path), to) for path in paths]
    middle, count = eval_transform(to), len(paths)

    def decode() -> None:
        for path in paths:
            resize_for_cache(read_image(path), to)

    def views(level: str) -> None:
        augment = train_transform(to, level)
        normalise(stack([augment(base, seed) for seed, base in enumerate(bases)]), to)

    def crops() -> None:
        normalise(stack([middle(base) for base in bases]), to)

    cpu = torch.device("cpu")
    return {
        "picture_bytes": sum(base.numel() for base in bases) / count,
        "decode": _median_seconds(decode, cpu) / count,
        "augment": {level: _median_seconds(partial(views, level), cpu) / count for level in LEVELS},
        "crop": _median_seconds(crops, cpu) / count,
    }


def _training(
    model: Classifier, batch: torch.Tensor, cuts: Sequence[int], autocast: torch.dtype | None
) -> dict[str, Any]:
    """Return the costs of training steps by cut."""
    device, count = batch.device, len(batch)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    train, update = {}, {}
    first_step = 0.0
    for cut in cuts:
        freeze_blocks(model, cut)
        with torch.no_grad():
            hidden = model.prefix(batch, cut)

        def gradients(hidden: torch.Tensor = hidden, cut: int = cut) -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                logits = model.suffix(hidden, cut)
            loss_function(logits.float(), labels).backward()

        if cut == cuts[0]:  # the steps of the others are warm then
            first_step = _seconds(gradients, device)
        train[cut] = _median_seconds(gradients, device) / count
        update[cut] = _median_seconds(optimizer.step, device)
    return {"train": train, "update": update, "first_step": first_step / count - train[cuts[0]]}


@torch.no_grad()
def _forward(
    model: Classifier, batch: torch.Tensor, cuts: Sequence[int], autocast: torch.dtype | None
) -> dict[str, Any]:
    """Return the costs of forward passes by cut, and the size of what lies between."""
    device, count = batch.device, len(batch)
    model.eval()
    prefix, forward = FrozenPrefix(model), {}
    rows, evaluate = {}, {}
    hidden, start, spent = batch, 0, 0.0
    for cut in cuts:
        before = hidden
        if cut > start:
            spent += _median_seconds(lambda: prefix.run(before, start, cut), device)  # noqa: B023  (called at once)
            hidden = prefix.run(before, start, cut)
        forward[cut], rows[cut], start = spent / count, 2 * hidden[0].numel(), cut

        def rest(hidden: torch.Tensor = hidden, cut: int = cut) -> None:
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                model.suffix(hidden, cut)

        evaluate[cut] = _median_seconds(rest, device) / count
    return {"prefix": forward, "evaluate": evaluate, "row_bytes": rows}


def _write_seconds() -> float:
    """Return the seconds that a byte takes to the disk of the cache."""
    content = os.urandom(2**20)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        start = time.perf_counter()
        for _ in range(WRITTEN_BYTES // len(content)):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - start) / WRITTEN_BYTES


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of some calls."""
    times: list[float] = []
    while len(times) < LEAST_STEPS or (len(times) < MOST_STEPS and sum(times) < STEP_SECONDS):
        times.append(_seconds(work, device))
    return statistics.median(times)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of a call, of what it has started on a GPU too."""
    start = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.stdout.write(to_json(measure(request_from(sys.stdin.read()))) + "\n")
