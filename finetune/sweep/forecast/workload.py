"""From the runs that are to do to what they are expected to take: what to probe for each, and the forecast of all."""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.cache import store
from finetune.cache.pixel_cache import open_pixels
from finetune.config import Config, parse_config
from finetune.data import catalog
from finetune.data.dataset import worker_count
from finetune.data.splits import Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.resolve import resolve, with_absolute_paths
from finetune.run import preflight
from finetune.rundir import files
from finetune.sweep import devices, search
from finetune.sweep.display import console
from finetune.sweep.forecast import model, probe_pool
from finetune.sweep.forecast.model import PendingRun
from finetune.sweep.forecast.probe import CPU_BATCH, ProbeRequest, ProbeResult
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan

MIN_RUNS = 3  # fewer are soon over, and their bars tell how long
MIN_IMAGES = 100  # of 224 pixels, counted in every epoch of every run: with fewer, a sweep is over before the probe
PROBED_IMAGES = 8  # of the data's own, to measure decoding
SPLITS = ("train", "val", "test")
DRAWS = 16  # of a search's space, for the runs that it has yet to choose


class ProbeKey(NamedTuple):
    """What runs must agree in to be as fast, an epoch with the same cut."""

    backbone: str
    to: Preprocessing
    batch_size: int
    precision: str
    device: str
    data: str


def forecast_sweep(todo: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int) -> SweepForecast | None:
    """Return what these runs will take, or None where that can't be told, or is not worth a probe.

    Args:
        runs: those that are to do, in their order.
        unknown: how many more a search will choose.
        agents: runs side by side.
    """
    if len(runs) + unknown < MIN_RUNS:
        return None
    try:
        return _expect(todo, runs, unknown, agents)
    except Exception as error:  # whatever it is, the sweep can do without
        console.print(f"no forecast: {error}")
        return None


def _expect(todo: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int) -> SweepForecast | None:
    drawn = list(itertools.islice(itertools.cycle(_draws(todo)), unknown)) if unknown else []
    configs = [*(run.config for run in runs), *drawn]
    kinds = [_kind(config) for config in configs]
    if sum(map(_pictures, configs, kinds)) < MIN_IMAGES:
        return None
    shares: defaultdict[str, set[float]] = defaultdict(set)  # of all runs of a network, as they share what is cached
    for config in configs:
        shares[config.backbone] |= {share for _, share in config.unfreeze or ()}
    speeds = {}
    for config, kind in zip(configs, kinds, strict=True):
        if kind not in speeds:
            speeds[kind] = probe_pool.speed_of(_wanted(config, kind, tuple(sorted(shares[kind.backbone]))), agents)
    done = [len(files.read_history(run.directory)[0]) for run in runs] + [0] * unknown
    names = [*(run.id for run in runs), *(f"draw {number}" for number in range(unknown))]
    ahead = [
        _ahead(name, config, kind, speeds[kind], epochs)
        for name, config, kind, epochs in zip(names, configs, kinds, done, strict=True)
    ]
    place, caches = _existing(todo.sweep.folder), _existing(store.entries_folder())
    shared = model.Resources(
        agents=agents,
        threads=devices.threads(agents),
        cache_budget=store.budget_bytes(),
        free_bytes=shutil.disk_usage(place).free,
        caches_beside=place.stat().st_dev == caches.stat().st_dev,
    )
    return model.simulate(ahead, shared, unknown, stops_early="early_terminate" in todo.sweep.spec)


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _draws(todo: SweepPlan) -> list[Config]:
    """Return configs from all over the space of a search."""
    points = search.probes(todo.sweep.spec, todo.sweep.folder.name)[:DRAWS]
    return [with_absolute_paths(resolve(parse_config(point, str(todo.sweep.source)))) for point in points]


def _kind(config: Config) -> ProbeKey:
    to = preprocessing(config.backbone, config.weights, config.image_px)
    is_cpu = config.device == "cpu" or (config.device == "auto" and not devices.gpus())
    size = min(config.batch_size, CPU_BATCH) if is_cpu else config.batch_size
    return ProbeKey(config.backbone, to, size, config.precision, config.device, config.data)


def _pictures(config: Config, kind: ProbeKey) -> float:
    """Return how many pictures of 224 pixels have as many pixels as the run looks at."""
    return config.epochs * len(_splits(config).train) * (kind.to.crop_px / 224) ** 2


def _splits(config: Config) -> Splits:
    return preflight.load_splits(config)


def _wanted(config: Config, kind: ProbeKey, shares: tuple[float, ...]) -> ProbeRequest:
    """Return what to probe for runs of this kind."""
    splits = _splits(config)
    pictures = splits.train[:: max(1, len(splits.train) // PROBED_IMAGES)][:PROBED_IMAGES]
    return ProbeRequest(
        backbone=kind.backbone,
        weights=config.weights,
        image_px=config.image_px,
        batch_size=kind.batch_size,
        precision=kind.precision,
        device=kind.device,
        shares=shares,
        classes=len(splits.classes),
        root=str(splits.root),
        pictures=tuple(picture.path for picture in pictures),
    )


def _ahead(name: str, config: Config, kind: ProbeKey, speed: ProbeResult, epochs_done: int) -> PendingRun:
    splits = _splits(config)
    workers = worker_count(config.loader_workers, speed.device)
    sizes = {split: len(getattr(splits, split)) for split in SPLITS}
    decoded = _decoded(splits, preflight.fingerprint(catalog.locate(config.data)), kind.to)
    return PendingRun(name, config, sizes, kind.to, speed, epochs_done, decoded, workers)


def _decoded(splits: Splits, fingerprint: str, to: Preprocessing) -> frozenset[str]:
    """Return the splits whose decoded pictures are in the cache."""
    found = {name: open_pixels(getattr(splits, name), to, fingerprint) for name in SPLITS}
    return frozenset(name for name, pixels in found.items() if pixels is not None)
