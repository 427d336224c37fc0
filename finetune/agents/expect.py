"""From the runs that are to do to what they are expected to take: what to probe for each, and the forecast of all."""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune import preflight, store
from finetune.agents import forecast, machine, probes, search
from finetune.agents.forecast import Ahead
from finetune.agents.outlook import Outlook
from finetune.agents.plan import Plan, PlannedRun
from finetune.config import Config, parse_config
from finetune.data import catalog
from finetune.data.loading import worker_count
from finetune.data.pixels import open_pixels
from finetune.data.splits import Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.probe import CPU_BATCH, Speed, Wanted
from finetune.resolve import resolve, with_absolute_paths
from finetune.rundir import files

LEAST_RUNS = 3  # fewer are soon over, and their bars tell how long
LEAST_PICTURES = 100  # of 224 pixels, counted in every epoch of every run: with fewer, a sweep is over before the probe
PICTURES = 8  # of the data's own, to measure decoding
SPLITS = ("train", "val", "test")
DRAWS = 16  # of a search's space, for the runs that it has yet to choose


class Kind(NamedTuple):
    """What runs must agree in to be as fast, an epoch with the same cut."""

    backbone: str
    to: Preprocessing
    batch_size: int
    precision: str
    device: str
    data: str


def expect(
    todo: Plan, runs: Sequence[PlannedRun], unknown: int, agents: int, say: Callable[[str], None]
) -> Outlook | None:
    """Return what these runs will take, or None where that can't be told, or is not worth a probe.

    Args:
        runs: those that are to do, in their order.
        unknown: how many more a search will choose.
        agents: runs side by side.
        say: called with lines for the terminal.
    """
    if len(runs) + unknown < LEAST_RUNS:
        return None
    try:
        return _expect(todo, runs, unknown, agents, say)
    except Exception as error:  # whatever it is, the sweep can do without
        say(f"no forecast: {error}")
        return None


def _expect(
    todo: Plan, runs: Sequence[PlannedRun], unknown: int, agents: int, say: Callable[[str], None]
) -> Outlook | None:
    drawn = list(itertools.islice(itertools.cycle(_draws(todo)), unknown)) if unknown else []
    configs = [*(run.config for run in runs), *drawn]
    kinds = [_kind(config) for config in configs]
    if sum(map(_pictures, configs, kinds)) < LEAST_PICTURES:
        return None
    shares: defaultdict[str, set[float]] = defaultdict(set)  # of all runs of a network, as they share what is cached
    for config in configs:
        shares[config.backbone] |= {share for _, share in config.unfreeze or ()}
    speeds = {}
    for config, kind in zip(configs, kinds, strict=True):
        if kind not in speeds:
            speeds[kind] = probes.speed_of(_wanted(config, kind, tuple(sorted(shares[kind.backbone]))), agents, say)
    done = [len(files.read_history(run.directory)[0]) for run in runs] + [0] * unknown
    names = [*(run.id for run in runs), *(f"draw {number}" for number in range(unknown))]
    ahead = [
        _ahead(name, config, kind, speeds[kind], epochs)
        for name, config, kind, epochs in zip(names, configs, kinds, done, strict=True)
    ]
    place, caches = _existing(todo.sweep.folder), _existing(store.folder())
    shared = forecast.Machine(
        agents=agents,
        threads=machine.threads(agents),
        cache_budget=store.budget_bytes(),
        free_bytes=shutil.disk_usage(place).free,
        caches_beside=place.stat().st_dev == caches.stat().st_dev,
    )
    return forecast.forecast(ahead, shared, unknown, stops_early="early_terminate" in todo.sweep.spec)


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _draws(todo: Plan) -> list[Config]:
    """Return configs from all over the space of a search."""
    points = search.probes(todo.sweep.spec, todo.sweep.folder.name)[:DRAWS]
    return [with_absolute_paths(resolve(parse_config(point, str(todo.sweep.source)))) for point in points]


def _kind(config: Config) -> Kind:
    to = preprocessing(config.backbone, config.weights, config.image_px)
    is_cpu = config.device == "cpu" or (config.device == "auto" and not machine.gpus())
    size = min(config.batch_size, CPU_BATCH) if is_cpu else config.batch_size
    return Kind(config.backbone, to, size, config.precision, config.device, config.data)


def _pictures(config: Config, kind: Kind) -> float:
    """Return how many pictures of 224 pixels have as many pixels as the run looks at."""
    return config.epochs * len(_splits(config).train) * (kind.to.crop_px / 224) ** 2


def _splits(config: Config) -> Splits:
    return preflight.split(config)


def _wanted(config: Config, kind: Kind, shares: tuple[float, ...]) -> Wanted:
    """Return what to probe for runs of this kind."""
    splits = _splits(config)
    pictures = splits.train[:: max(1, len(splits.train) // PICTURES)][:PICTURES]
    return Wanted(
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


def _ahead(name: str, config: Config, kind: Kind, speed: Speed, epochs_done: int) -> Ahead:
    splits = _splits(config)
    workers = worker_count(config.loader_workers, speed.device)
    sizes = {split: len(getattr(splits, split)) for split in SPLITS}
    decoded = _decoded(splits, preflight.fingerprint(catalog.locate(config.data)), kind.to)
    return Ahead(name, config, sizes, kind.to, speed, epochs_done, decoded, workers)


def _decoded(splits: Splits, fingerprint: str, to: Preprocessing) -> frozenset[str]:
    """Return the splits whose decoded pictures are in the cache."""
    found = {name: open_pixels(getattr(splits, name), to, fingerprint) for name in SPLITS}
    return frozenset(name for name, pixels in found.items() if pixels is not None)
