"""Time and disk space of runs, from the seconds per image that a probe has measured: arithmetic only.

Caches count as filled once, beside the runs. An epoch with frozen blocks then costs only the blocks after the cut.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from finetune.cache import reuse
from finetune.cache.reuse import ActivationKey
from finetune.config import Config
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.resolve import SPLIT_FIELDS
from finetune.rundir.retention import checkpoints_left
from finetune.sweep.forecast.probe import ProbeResult
from finetune.sweep.forecast.report import StrategyForecast

SPLITS = ("train", "val", "test")
START_SECONDS = 2.0  # process, network, weights and first step; thumbnails and tables at the end
WRITE_SECONDS = 2e-9  # per byte: 500 MB/s
SMALL_FILES_BYTES = 1_000_000  # per run, beside checkpoints: predictions, thumbnails, config, history, log
WEIGHT_BYTES = 4  # of a parameter in a checkpoint
ADAM_BYTES = 8  # of AdamW's two moments of a parameter


class NetworkSize(NamedTuple):
    """Sizes of a network."""

    blocks: int
    parameters: int  # head included
    row_bytes: Sequence[int]  # of one image's activations before each block, and before the head, in float16


@dataclass(frozen=True)
class PendingRun:
    """A run to forecast; `config` is resolved."""

    config: Config
    images: Mapping[str, int]  # by split
    network: NetworkSize
    speed: ProbeResult
    epochs_done: int = 0  # by earlier attempts
    epoch_seconds: float | None = None  # of finished runs that are as fast, in place of the probe's
    workers: int = 0  # loader processes; 0 if the run's own process loads images

    @property
    def epochs_left(self) -> int:
        """Number of epochs that are not trained yet."""
        return self.config.epochs - self.epochs_done


@dataclass
class Caches:
    """The caches once all runs have filled them."""

    budget: int  # bytes
    bytes: int = 0
    refused_bytes: int = 0  # of entries without room
    seconds: float = 0.0  # to fill them
    entries: dict[Hashable, bool] = field(default_factory=dict)  # entry -> whether there was room

    def add(self, entry: Hashable, size: int) -> bool:
        """Store an entry if it is new and fits; return whether it was stored."""
        if entry in self.entries:
            return False
        self.entries[entry] = fits = self.bytes + size <= self.budget
        self.bytes += size if fits else 0
        self.refused_bytes += 0 if fits else size
        self.seconds += size * WRITE_SECONDS if fits else 0.0
        return fits

    def holds(self, run: PendingRun, split: str, key: ActivationKey | None = None) -> bool:
        """Return whether activations, or without a key the decoded images of a split, are stored for a run."""
        entry = _image_entry(run, split) if key is None else _activation_entry(run, key)
        return run.config.cache != "off" and self.entries.get(entry, False)


def _image_entry(run: PendingRun, split: str) -> Hashable:
    config = run.config
    share = config.train_share if split == "train" else None
    fields = (getattr(config, name) for name in (*SPLIT_FIELDS, "backbone", "image_px"))
    return split, share, *fields


def _activation_entry(run: PendingRun, key: ActivationKey) -> Hashable:
    """Return the key of activations: runs share those of central crops more widely than augmented views."""
    config = run.config
    fields = [getattr(config, name) for name in reuse.SAME_FIELDS]
    views = reuse.training_views(config) if key.view is not None else None
    return *fields, config.seed if config.weights == "none" else None, views, key


def fill_caches(runs: Sequence[PendingRun], budget: int, threads: int) -> Caches:
    """Return the caches that these runs fill, by the activation cache's own rule (see reuse.py)."""
    caches, configs = Caches(budget), [run.config for run in runs]
    uses: dict[Hashable, Counter[ActivationKey]] = {}
    for run in runs:
        blocks, mode = run.network.blocks, run.config.cache
        if mode == "off" or run.epoch_seconds is not None:  # finished runs have filled the caches
            continue
        for split in SPLITS:
            if caches.add(_image_entry(run, split), round(run.images[split] * run.speed.image_bytes)):
                caches.seconds += run.images[split] * run.speed.decode / threads
        group = _activation_entry(run, ActivationKey("train", 0, 0))  # runs with the same group use the same entries
        if group not in uses:
            uses[group] = reuse.shared_activation_uses(run.config, configs, blocks)
        for key in reuse.activation_uses(run.config, blocks):
            if reuse.should_store(key, uses[group], mode):
                _fill_view(caches, run, reuse.entries_of_pass(key, uses[group], mode))
    return caches


def _fill_view(caches: Caches, run: PendingRun, keys: set[ActivationKey]) -> None:
    """Store activations of one view in one pass over its images, the smallest first."""
    sizes = {key: run.images[key.split] * run.network.row_bytes[key.cut] for key in keys}
    stored = [key for key in sorted(keys, key=sizes.__getitem__) if caches.add(_activation_entry(run, key), sizes[key])]
    if stored:
        deepest = max(key.cut for key in stored)
        caches.seconds += _pass_seconds(run, stored[0].split, run.speed.prefix[deepest], caches)


def run_seconds(run: PendingRun, caches: Caches) -> float:
    """Return how long a run takes once the caches are filled."""
    if run.epoch_seconds is not None:
        return START_SECONDS + run.epochs_left * run.epoch_seconds
    schedule = UnfreezeSchedule.of(run.config, run.network.blocks)
    save = (2 * WEIGHT_BYTES + ADAM_BYTES) * run.network.parameters * WRITE_SECONDS  # best.pt, last.pt with the moments
    total = START_SECONDS + run.epochs_left * save
    for epoch in range(run.epochs_done, run.config.epochs):
        total += _train_seconds(run, epoch, schedule.cut(epoch), caches)
        total += _evaluation_seconds(run, "val", schedule.cut(epoch), caches)
    return total + _evaluation_seconds(run, "test", schedule.final_cut, caches)


def _train_seconds(run: PendingRun, epoch: int, cut: int, caches: Caches) -> float:
    config, speed, images = run.config, run.speed, run.images["train"]
    update = math.ceil(images / config.batch_size) * speed.update[cut]
    view = reuse.view_at(epoch, config.views, config.seed) if config.views else None
    if cut and view is not None and caches.holds(run, "train", ActivationKey("train", view, cut)):
        return images * speed.train[cut] + update
    return _pass_seconds(run, "train", speed.prefix[cut] + speed.train[cut], caches) + update


def _evaluation_seconds(run: PendingRun, split: str, cut: int, caches: Caches) -> float:
    if cut and caches.holds(run, split, ActivationKey(split, None, cut)):
        return run.images[split] * run.speed.evaluate[cut]
    return _pass_seconds(run, split, run.speed.evaluate[0], caches)


def _pass_seconds(run: PendingRun, split: str, compute: float, caches: Caches) -> float:
    """Return the seconds of a pass over the images of a split, whose network takes `compute` seconds an image."""
    load = run.speed.load + (0.0 if caches.holds(run, split) else run.speed.decode)
    return run.images[split] * (max(load / run.workers, compute) if run.workers else load + compute)


def forecast_strategies(runs: Sequence[PendingRun], seconds: Sequence[float]) -> dict[str, StrategyForecast]:
    """Return strategy -> forecast, from the seconds of each run."""
    count, total, epochs = Counter[str](), defaultdict[str, float](float), Counter[str]()
    for run, duration in zip(runs, seconds, strict=True):
        count[run.config.strategy] += 1
        total[run.config.strategy] += duration
        epochs[run.config.strategy] += max(1, run.epochs_left)
    return {name: StrategyForecast(count[name], total[name], total[name] / epochs[name]) for name in sorted(count)}


def wall_seconds(seconds: Sequence[float], agents: int) -> float:
    """Return when the last run ends, if each starts in this order as soon as one of `agents` is free."""
    free_at = [0.0] * agents
    for duration in seconds:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)


def run_bytes(runs: Sequence[PendingRun], agents: int) -> int:
    """Return the disk space that run directories take at most.

    Each run leaves some checkpoints. A run under way also has best.pt, last.pt with the optimizer's state, and the
    temporary file that will replace one of them.
    """
    parameters = max(run.network.parameters for run in runs)
    left = [checkpoints_left(run.config) * WEIGHT_BYTES * run.network.parameters + SMALL_FILES_BYTES for run in runs]
    temporary = max(0, 2 - min(checkpoints_left(run.config) for run in runs))  # deleted at a run's end
    return sum(left) + agents * parameters * ((temporary + 1) * WEIGHT_BYTES + 2 * ADAM_BYTES)
