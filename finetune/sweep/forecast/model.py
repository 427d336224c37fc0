"""What runs will take, from what one picture costs on this machine: arithmetic, nothing is measured here.

It follows what a run does (see batch_source.py, activation_cache.py): what a cache holds is paid for by the first run
that needs it, and an epoch with a frozen part then costs what comes after the cut.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from finetune.cache import reuse
from finetune.cache.reuse import ActivationKey, training_views, view_at
from finetune.config import Config
from finetune.data.transforms import Preprocessing, side_at
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.rundir.retention import checkpoints_left
from finetune.sweep.forecast.probe import ProbeResult
from finetune.sweep.forecast.report import StrategyForecast, SweepForecast

# A run's process: its start, the network and its weights, config and splits written, thumbnails and tables at the end.
START_SECONDS = 1.5
# Beside checkpoints: the table of predictions, thumbnails, config, history, log.
SMALL_FILES_BYTES = 1_000_000
FLOAT_BYTES = 4
ADAM_BYTES = 2 * FLOAT_BYTES  # AdamW's two moments of each parameter that has trained


@dataclass(frozen=True)
class PendingRun:
    """A run that is to do.

    Attributes:
        config: resolved.
        sizes: split -> pictures.
        to: its preprocessing.
        speed: of this machine with this network, beside as many runs as there are going to be.
        epochs_done: by earlier attempts.
        decoded: splits whose decoded pictures are in the cache already.
        workers: processes that load pictures beside the one that computes; 0 where it loads them itself.
    """

    id: str
    config: Config
    sizes: Mapping[str, int]
    to: Preprocessing
    speed: ProbeResult
    epochs_done: int = 0
    decoded: frozenset[str] = frozenset()
    workers: int = 0


class Resources(NamedTuple):
    """How it is shared out.

    Attributes:
        agents: runs side by side.
        threads: of each run.
        cache_budget: bytes that caches may take.
        free_bytes: on the disk of the run directories.
        caches_beside: whether caches are on that disk too.
    """

    agents: int
    threads: int
    cache_budget: int
    free_bytes: int
    caches_beside: bool = True


def simulate(
    runs: Sequence[PendingRun], machine: Resources, unknown: int = 0, stops_early: bool = False
) -> SweepForecast:
    """Return what these runs will take, in the order given.

    Args:
        runs: at least one. The last `unknown` of them stand for runs that a search has yet to choose.
        stops_early: whether the sweep ends runs before their last epoch.
    """
    caches = _CacheSimulation(machine, _uses(runs))
    seconds = [_run_seconds(run, caches) for run in runs]
    epochs: Counter[str] = Counter()
    grouped: defaultdict[str, list[float]] = defaultdict(list)
    for run, its_seconds in zip(runs, seconds, strict=True):
        grouped[run.config.strategy].append(its_seconds)
        epochs[run.config.strategy] += max(1, run.config.epochs - run.epochs_done)
    known = len(runs) - unknown
    return SweepForecast(
        seconds=wall_seconds(seconds, machine.agents),
        agents=machine.agents,
        threads=machine.threads,
        device=runs[0].speed.device,
        run_seconds={run.id: its_seconds for run, its_seconds in list(zip(runs, seconds, strict=True))[:known]},
        unknown=unknown,
        strategies={
            name: StrategyForecast(len(some), sum(some), sum(some) / epochs[name])
            for name, some in sorted(grouped.items())
        },
        cache_seconds=caches.seconds,
        run_bytes=_run_bytes(runs, machine.agents),
        free_bytes=machine.free_bytes,
        caches_beside=machine.caches_beside,
        cache_bytes=caches.bytes,
        cache_budget=machine.cache_budget,
        refused_bytes=sum(caches.refused.values()),
        most=stops_early or any(run.config.patience is not None for run in runs),
    )


def wall_seconds(seconds: Sequence[float], agents: int) -> float:
    """Return when the last of these runs ends, if each starts in this order as soon as one of `agents` is free."""
    free = [0.0] * agents
    for its_seconds in seconds:
        heapq.heapreplace(free, free[0] + its_seconds)
    return max(free)


def _run_seconds(run: PendingRun, caches: "_CacheSimulation") -> float:
    """Return what a run takes, with what it is the first to need of the caches."""
    config, speed = run.config, run.speed
    schedule = UnfreezeSchedule.of(config, speed.blocks)
    total = START_SECONDS + speed.first_step * min(config.batch_size, run.sizes["train"])
    cut = 0
    for epoch in range(run.epochs_done, config.epochs):
        cut = schedule.cut(epoch)
        total += _train_seconds(run, epoch, cut, caches) + _evaluation_seconds(run, "val", cut, caches)
        # last.pt with the optimiser's state, at most best.pt, and the epoch's own where each is kept
        files = 3 if config.keep == "every" else 2
        total += (files * FLOAT_BYTES * speed.parameters + ADAM_BYTES * speed.trainable[cut]) * speed.write
    return total + _evaluation_seconds(run, "test", cut, caches)


def _train_seconds(run: PendingRun, epoch: int, cut: int, caches: "_CacheSimulation") -> float:
    """Return what an epoch's training takes."""
    config, speed, count = run.config, run.speed, run.sizes["train"]
    steps = math.ceil(count / config.batch_size) * speed.update[cut]
    if cut and config.views:
        filled = caches.activations(run, ActivationKey("train", view_at(epoch, config.views, config.seed), cut))
        if filled is not None:
            return filled + count * speed.train[cut] + steps
    px = run.to.crop_px
    side = px if cut else side_at(epoch, config.epochs, config.start_px, px)
    compute = (speed.prefix[cut] + speed.train[cut]) * (side / px) ** 2  # convolutions: by the pixel
    return caches.pictures(run, "train", compute) + steps


def _evaluation_seconds(run: PendingRun, split: str, cut: int, caches: "_CacheSimulation") -> float:
    """Return what a pass over val or test takes."""
    if cut:
        filled = caches.activations(run, ActivationKey(split, None, cut))
        if filled is not None:
            return filled + run.sizes[split] * run.speed.evaluate[cut]
    return caches.pictures(run, split, run.speed.evaluate[0])


def _run_bytes(runs: Sequence[PendingRun], agents: int) -> int:
    """Return the disk that run directories take at most: what each run leaves, and what those under way have besides.

    A run under way has best.pt, last.pt with the optimiser's state, and the file that is to take the place of one.
    """
    weights = max(FLOAT_BYTES * run.speed.parameters for run in runs)
    state = max(ADAM_BYTES * run.speed.parameters for run in runs)
    left = [checkpoints_left(run.config) * FLOAT_BYTES * run.speed.parameters + SMALL_FILES_BYTES for run in runs]
    beside = max(0, 2 - min(checkpoints_left(run.config) for run in runs))  # needed up to a run's end
    return sum(left) + agents * (beside * weights + state + (weights + state))


def _circle(config: Config) -> tuple[Hashable, ...]:
    """Return what runs must agree in to share central crops' activations; random weights are each seed's own."""
    same = tuple(getattr(config, name) for name in reuse.SAME_FIELDS)
    return (*same, config.seed if config.weights == "none" else None)


def _uses(runs: Sequence[PendingRun]) -> dict[tuple[Hashable, ...], Counter[ActivationKey]]:
    """Return what runs must agree in -> how often all of them use which activations."""
    uses: dict[tuple[Hashable, ...], Counter[ActivationKey]] = {}
    configs = [run.config for run in runs]
    for run in runs:
        key = (*_circle(run.config), training_views(run.config))
        if key not in uses:
            uses[key] = reuse.shared_activation_uses(run.config, configs, run.speed.blocks)
    return uses


@dataclass
class _CacheSimulation:
    """What is in the caches as run after run uses them.

    Attributes:
        uses: see `_uses`.
        seconds: that filling them has taken.
        bytes: that they hold.
        refused: what there was no room for -> its bytes.
    """

    machine: Resources
    uses: dict[tuple[Hashable, ...], Counter[ActivationKey]]
    seconds: float = 0.0
    bytes: int = 0
    refused: dict[Hashable, int] = field(default_factory=dict)
    _filled: set[Hashable] = field(default_factory=set)
    _decoded: dict[Hashable, bool] = field(default_factory=dict)

    def activations(self, run: PendingRun, need: ActivationKey) -> float | None:
        """Return the seconds that it takes to have these activations in the cache, or None where they are not kept."""
        if not self._is_wanted(run, need):
            return None
        if self._key(run, need) in self._filled:
            return 0.0
        # One pass fills all cuts that runs need of this view, as far as they fit.
        others = [other for other in self._of(run) if other[:2] == need[:2] and self._is_wanted(run, other)]
        missing = [other for other in {*others, need} if self._key(run, other) not in self._filled]
        fitting, size = [], 0
        for other in sorted(missing, key=lambda other: run.speed.row_bytes[other.cut]):
            its_size = run.sizes[need.split] * run.speed.row_bytes[other.cut]
            if self._fits(self._key(run, other), size + its_size, its_size):
                fitting.append(other)
                size += its_size
        if need not in fitting:
            return None
        self._filled |= {self._key(run, other) for other in fitting}
        self.bytes += size
        before = self.seconds
        seconds = self.pictures(run, need.split, run.speed.prefix[max(other.cut for other in fitting)])
        seconds += size * run.speed.write
        self.seconds = before + seconds  # decoding included, which `pictures` has counted
        return seconds

    def pictures(self, run: PendingRun, split: str, compute: float) -> float:
        """Return the seconds of a pass over a split's pictures, decoded first where this is the first one.

        Args:
            compute: seconds a picture that the network takes.
        """
        config, speed, count = run.config, run.speed, run.sizes[split]
        share = config.train_share if split == "train" else None
        of_split = (config.data, config.split_seed, config.folds, config.fold, split, share)
        key = (of_split, run.to.resize_px, run.to.interpolation)
        seconds = 0.0
        if key not in self._decoded:
            size = round(count * speed.picture_bytes)
            self._decoded[key] = config.cache != "off" and (split in run.decoded or self._fits(key, size, size))
            if self._decoded[key] and split not in run.decoded:
                self.bytes += size
                seconds = count * speed.decode / self.machine.threads + size * speed.write
                self.seconds += seconds
        augmented = split == "train" and config.augment != "none"
        load = speed.augment[config.augment] if augmented else speed.crop
        load += 0.0 if self._decoded[key] else speed.decode
        return seconds + count * (max(load / run.workers, compute) if run.workers else load + compute)

    def _fits(self, key: Hashable, more: int, own: int) -> bool:
        """Whether there is room for so many more bytes, `own` of them for this; notes it if not."""
        if self.bytes + more > self.machine.cache_budget:
            self.refused[key] = own
            return False
        return True

    def _is_wanted(self, run: PendingRun, need: ActivationKey) -> bool:
        mode = run.config.cache
        return mode == "on" or (mode == "auto" and self._of(run)[need] > 1)

    def _of(self, run: PendingRun) -> Counter[ActivationKey]:
        return self.uses[*_circle(run.config), training_views(run.config)]

    def _key(self, run: PendingRun, need: ActivationKey) -> Hashable:
        return (*_circle(run.config), training_views(run.config) if need.view is not None else None, need)
