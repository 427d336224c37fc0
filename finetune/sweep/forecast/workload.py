"""Forecast of a sweep: collects what is known of its pending runs, and probes each kind of network."""

import itertools
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from finetune.cache import store
from finetune.config import Config, parse_config
from finetune.data.dataset import worker_count
from finetune.models.classifier import build_classifier, build_meta_network
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.pretrained import preprocessing_of
from finetune.resolve import resolve, with_absolute_paths
from finetune.run import preflight
from finetune.rundir import files, keys
from finetune.sweep import devices, search
from finetune.sweep.display import console
from finetune.sweep.forecast import model, probe_pool
from finetune.sweep.forecast.model import SPLITS, NetworkSize, PendingRun
from finetune.sweep.forecast.probe import ProbeRequest
from finetune.sweep.forecast.report import FORECAST, SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents

MIN_RUNS = 3  # fewer are soon over, and their bars show how long they take
MIN_IMAGES = 100  # of 224 pixels, over all epochs and runs: a sweep with fewer is over before the probe
PROBED_IMAGES = 8  # of the data set, to measure decoding
MAX_DRAWS = 16  # different configs from a search's space, for the runs that it has yet to choose
# On the CPU an image takes nearly as long in batches of 8 as of 32 (EfficientNetV2-S, 224 px). GPUs need the real size.
CPU_BATCH_SIZE = 8
# Runs that agree in these take as long per epoch.
SPEED_FIELDS = (
    *("data", "folds", "train_share", "backbone", "image_px", "start_px", "batch_size", "precision", "device"),
    *("strategy", "unfreeze", "augment", "erasing", "mixup", "cutmix"),
)


def forecast_sweep(plan: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int) -> SweepForecast | None:
    """Return the forecast of these runs; None if there are few, or if it fails, which is printed.

    Args:
        runs: in the order in which they start.
        unknown: number of runs that a search will add.
        agents: number of runs side by side.
    """
    if len(runs) + unknown < MIN_RUNS:
        return None
    try:
        pending = _pending_runs(plan, runs, unknown, agents)
        return _forecast(plan, pending, unknown, agents) if pending else None
    except Exception as error:  # of any kind: a sweep can do without a forecast
        console.print(f"no forecast: {error}")
        return None


def _pending_runs(
    plan: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int
) -> dict[str, PendingRun] | None:
    """Return id -> run, None if they are soon over; a run that a search has yet to choose is a draw from its space."""
    configs = {run.id: run.config for run in runs}
    draws = itertools.islice(itertools.cycle(_draw_configs(plan)), unknown) if unknown else ()
    configs |= {f"draw {number}": config for number, config in enumerate(draws)}
    if sum(map(_image_count, configs.values())) < MIN_IMAGES:
        return None
    cuts: defaultdict[str, set[int]] = defaultdict(lambda: {0})  # of all runs: one fills the caches of others
    for config in configs.values():
        schedule = UnfreezeSchedule.of(config, _network_size(config).blocks)
        cuts[config.backbone] |= {schedule.cut(epoch) for epoch, _ in schedule.steps}
    requests = {name: _probe_request(config, cuts[config.backbone]) for name, config in configs.items()}
    speeds = {request: probe_pool.run_probes(request, agents) for request in dict.fromkeys(requests.values())}
    epochs_done = {run.id: len(files.read_history(run.directory)[0]) for run in runs}
    paces = _observed_paces(plan, agents)
    return {
        name: PendingRun(
            config,
            images={split: len(getattr(preflight.load_splits(config), split)) for split in SPLITS},
            network=_network_size(config),
            speed=speeds[requests[name]],
            epochs_done=epochs_done.get(name, 0),
            epoch_seconds=paces.get(_pace_key(config)),
            workers=worker_count(config.loader_workers, speeds[requests[name]].device),
        )
        for name, config in configs.items()
    }


def _forecast(plan: SweepPlan, runs: dict[str, PendingRun], unknown: int, agents: int) -> SweepForecast:
    pending, threads = list(runs.values()), devices.threads_per_run(agents)
    configs = [run.config for run in pending]
    caches = model.fill_caches(pending, store.budget_bytes(), threads)
    seconds = [model.run_seconds(run, caches) for run in pending]
    run_disk, cache_disk = _existing_folder(plan.sweep.folder), _existing_folder(store.entries_folder())
    return SweepForecast(
        seconds=model.wall_seconds(seconds, agents) + caches.seconds,
        agents=agents,
        threads=threads,
        device=pending[0].speed.device,
        run_seconds=dict(list(zip(runs, seconds, strict=True))[: len(runs) - unknown]),
        unknown=unknown,
        strategies=model.forecast_strategies(pending, seconds),
        cache_seconds=caches.seconds,
        run_bytes=model.run_bytes(pending, agents),
        free_bytes=shutil.disk_usage(run_disk).free,
        cache_bytes=caches.bytes,
        cache_budget=caches.budget,
        refused_bytes=caches.refused_bytes,
        most="early_terminate" in plan.sweep.spec or any(map(_may_take_less, configs)),
        runs_per_recipe=_runs_per_recipe(plan),
        test_images=min(run.images["test"] for run in pending),
        caches_beside=run_disk.stat().st_dev == cache_disk.stat().st_dev,
    )


def _runs_per_recipe(plan: SweepPlan) -> int:
    """Return how many runs the test accuracy of a recipe will be the mean of, for the strategy with fewest."""
    counts: dict[str, int] = {}
    for (strategy, _), number in Counter((run.config.strategy, run.recipe) for run in plan.runs).items():
        counts[strategy] = max(counts.get(strategy, 0), number)
    smallest = min(counts.values(), default=0)
    return smallest - 1 if plan.race and smallest > 2 else smallest  # a race's first seed chooses the recipe


def _may_take_less(config: Config) -> bool:
    """Return whether a run may end early, or trains on smaller images at first."""
    return config.patience is not None or config.start_px is not None


def _draw_configs(plan: SweepPlan) -> list[Config]:
    """Return configs from all over the space of a search."""
    points = search.spanning_points(plan.sweep.spec, plan.sweep.folder.name)[:MAX_DRAWS]
    return [with_absolute_paths(resolve(parse_config(point, str(plan.sweep.source)))) for point in points]


def _image_px(config: Config) -> int:
    return preprocessing_of(config.backbone, config.weights, config.image_px).crop_px


def _image_count(config: Config) -> float:
    """Return the images that a run trains on, as a number of images of 224 x 224 pixels."""
    return config.epochs * len(preflight.load_splits(config).train) * (_image_px(config) / 224) ** 2


def _network_size(config: Config) -> NetworkSize:
    return _measure_size(config.backbone, _image_px(config), len(preflight.load_splits(config).classes))


@cache
@torch.no_grad()
def _measure_size(backbone: str, image_px: int, classes: int) -> NetworkSize:
    """Return the sizes of a network, from an image sent through it on torch's `meta` device, without memory."""
    network = build_classifier(build_meta_network(backbone, image_px), classes, dropout=0.0).to("meta").eval()
    image = torch.zeros(1, 3, image_px, image_px, device="meta")
    row_bytes = [2 * network.prefix(image, cut).numel() for cut in range(len(network.blocks) + 1)]
    return NetworkSize(len(network.blocks), sum(weights.numel() for weights in network.parameters()), row_bytes)


def _probe_request(config: Config, cuts: set[int]) -> ProbeRequest:
    splits = preflight.load_splits(config)
    samples = splits.train[:: max(1, len(splits.train) // PROBED_IMAGES)][:PROBED_IMAGES]
    is_cpu = config.device == "cpu" or (config.device == "auto" and not devices.gpus())
    return ProbeRequest(
        backbone=config.backbone,
        preprocessing=preprocessing_of(config.backbone, config.weights, config.image_px),
        batch_size=min(config.batch_size, CPU_BATCH_SIZE) if is_cpu else config.batch_size,
        precision=config.precision,
        device=config.device,
        augment=config.augment,
        cuts=tuple(sorted(cuts)),
        classes=len(splits.classes),
        images=tuple(str(splits.root / sample.path) for sample in samples),
    )


def _observed_paces(plan: SweepPlan, agents: int) -> dict[str, float]:
    """Return the seconds per epoch of finished runs by `_pace_key`, if as many ran side by side as now."""
    earlier = documents.read_json_or_empty(plan.sweep.folder / FORECAST).get("forecast") or {}
    if earlier.get("agents") != agents:
        return {}
    paces: defaultdict[str, list[float]] = defaultdict(list)
    for run in plan.runs:
        summary = documents.read_json_or_empty(run.directory / keys.SUMMARY)
        if summary.get("train_seconds") and summary.get("epochs"):
            seconds = summary["train_seconds"] - (summary.get("cache_seconds") or 0.0)
            paces[_pace_key(run.config)].append(seconds / summary["epochs"])
    return {key: statistics.median(seconds) for key, seconds in paces.items()}


def _pace_key(config: Config) -> str:
    return str([getattr(config, name) for name in SPEED_FIELDS])


def _existing_folder(path: Path) -> Path:
    """Return the nearest parent folder that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
