"""Measures the contenders in turns: round by round, strategy by strategy, each in a process of its own.

The load of the machine changes from minute to minute. So a contender is compared with the plain loop of the same round
and strategy, minutes apart, and never with that of another round.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.baselines import OURS, PLAIN, is_installed
from benchmarks.meters import describe_machine
from benchmarks.synthetic_images import CLASSES, PHOTO_SIZE, draw_folder
from finetune.errors import UserError
from finetune.system.documents import write_json

ROOT = Path(__file__).parents[1]
IMAGES = {"cpu": (64, 384), "gpu": (1024, 4096)}  # training images by default, and with --full
# A device that emulates bf16 is slower than in fp32 by more than this factor; one with bf16 of its own, at most a bit.
EMULATED = 4
VAL_SHARE = 4  # training images for each val image
GRADUAL_EPOCHS = 4  # one for each step of its schedule
GRADUAL = [[0, 0.0], [1, 1 / 3], [2, 2 / 3], [3, 1.0]]
LOADERS = {PLAIN: "ImageFolder, PIL", "off": "finetune, no cache", "on": "finetune, cached"}
LOADER_BACKBONE = "shufflenet_v2_x0_5"  # torchvision's quickest: the loader is to be measured
LOADER_EPOCHS = 4
LOADER_IMAGES = 128

Results = dict[str, Any]  # written as JSON; see `measure`
Fields = dict[str, Any]  # of a config
Job = tuple[str, dict[str, Any], dict[str, Any]]  # group of the results, labels, job for benchmarks.job


@dataclass(frozen=True)
class BenchmarkPlan:
    """What to measure."""

    contenders: tuple[str, ...]
    strategies: tuple[str, ...]
    rounds: int
    pictures: int | None  # training images of an epoch; None for a number of IMAGES
    full: bool  # whether that is the larger number
    batch_size: int
    backbone: str
    image_px: int
    loader_px: tuple[int, ...]  # crop sides for which loading is measured, from images of a photo's size
    device: str
    threads: int  # of each process
    weights: str = "none"


def measure(plan: BenchmarkPlan, out: Path) -> Results:
    """Measure everything and return the results, which are in the file `out` after each measurement.

    Raises:
        UserError: the plan names something that does not exist, such as the backbone.

    Returns:
        `machine`, `plan`, `floor` (see job.floors), `skipped` (contender -> reason), `runs` (strategy, contender,
        round, and the result of the contender's train() or `error`), `loader` (loader, round, px, and the result of
        job.loader or `error`).
    """
    fields = {strategy: _fields(plan, strategy) for strategy in plan.strategies}
    floor = _execute({"kind": "floor", "fields": fields, "device": plan.device}, plan.threads)
    if "error" in floor:
        raise UserError(f"can't begin: {floor['error']}")
    if plan.pictures is None:
        plan = replace(plan, pictures=IMAGES["cpu" if floor["device"] == "cpu" else "gpu"][plan.full])
    results: Results = {"machine": describe_machine(plan.threads), "plan": asdict(plan), "floor": floor}
    results |= {"skipped": find_skipped(plan, floor["peaks"]), "runs": [], "loader": []}
    names = [name for name in plan.contenders if name not in results["skipped"]]
    with tempfile.TemporaryDirectory() as folder:
        for group, labels, job in _jobs(plan, names, Path(folder)):
            start = time.perf_counter()
            result = _execute(job, 1 if group == "loader" else plan.threads)
            results[group].append({**labels, **result})
            write_json(out, results)
            title = ", ".join(f"{name} {value}" for name, value in labels.items())
            outcome = f"{result.get('error', 'done')}, {time.perf_counter() - start:.0f} s"
            print(f"{group}: {title}: {outcome}", file=sys.stderr, flush=True)
    return results


def find_skipped(plan: BenchmarkPlan, peaks: dict[str, float]) -> dict[str, str]:
    """Return contender -> why it can't be measured here."""
    skipped = {name: "not installed" for name in plan.contenders if not is_installed(name)}
    if OURS[1] in plan.contenders and peaks["bf16"] < peaks["fp32"] / EMULATED:
        skipped[OURS[1]] = "this device has no bf16 of its own"
    return skipped


def _jobs(plan: BenchmarkPlan, names: list[str], folder: Path) -> Iterator[Job]:
    """Draw the images into the folder, and yield all jobs in their order."""
    count, few = plan.pictures or 0, len(CLASSES)
    val = max(few, count // VAL_SHARE)
    data = draw_folder(folder / "pictures", {"train": count, "val": val, "test": few})
    tiny = {"train": plan.batch_size, "val": min(val, plan.batch_size), "test": few}
    warm_up = str(draw_folder(folder / "few", tiny, seed=1))
    loaded = {"train": max(few, min(LOADER_IMAGES, 2 * count)), "val": few, "test": few}
    photos = draw_folder(folder / "photos", loaded, size=PHOTO_SIZE)
    for number in range(plan.rounds):
        turn = number % len(names)
        for strategy, name in product(plan.strategies, names[turn:] + names[:turn]):
            labels = {"round": number, "strategy": strategy, "contender": name}
            fields = {**_fields(plan, strategy), "data": str(data)}
            yield "runs", labels, {"kind": "train", "contender": name, "fields": fields, "warm_up": warm_up}
        for px, name in product(plan.loader_px, LOADERS):
            job = {"kind": "loader", "contender": name, "fields": _loader_fields(plan, str(photos), px)}
            yield "loader", {"round": number, "px": px, "loader": name}, job


def _fields(plan: BenchmarkPlan, strategy: str) -> Fields:
    """Return the config fields of a strategy, without the data."""
    names = ("backbone", "weights", "image_px", "batch_size", "device")
    fields = {**{name: getattr(plan, name) for name in names}, "strategy": strategy}
    return fields | ({"epochs": GRADUAL_EPOCHS, "unfreeze": GRADUAL} if strategy == "gradual" else {"epochs": 1})


def _loader_fields(plan: BenchmarkPlan, data: str, px: int) -> Fields:
    network = {"backbone": LOADER_BACKBONE, "weights": "none", "strategy": "full", "device": "cpu"}
    loading = {"data": data, "batch_size": plan.batch_size, "image_px": px, "loader_workers": 0}
    return {**network, **loading, "epochs": LOADER_EPOCHS}


def _execute(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Do a job in a process of its own, with an empty cache; return its result, or its last line as `error`."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "FINETUNE_CACHE": str(Path(folder) / "cache")}
        command = [sys.executable, "-m", "benchmarks.job", json.dumps(job), str(result)]
        process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if process.returncode == 0:
            return dict(json.loads(result.read_text()))
        lines = [line.strip() for line in process.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"ended with exit code {process.returncode}"}
