"""Measures the contenders in turns: round by round, strategy by strategy, each in a process of its own.

What else the machine does changes from minute to minute. So a contender is compared with the plain loop of the same
round and strategy, minutes apart, and never with one of another round.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.baselines import CONTENDERS, OURS, PLAIN, is_installed
from benchmarks.machine import describe_machine
from benchmarks.synthetic_images import CLASSES, PHOTO_SIZE, draw
from finetune.errors import UserError

ROOT = Path(__file__).parents[1]
PICTURES = {"cpu": (64, 384), "gpu": (1024, 4096)}  # by default, in full
EMULATED = 4  # a device that has to emulate bf16 is slower than in fp32 by more than this; others can be a bit slower
VAL_SHARE = 4  # one val picture for so many training pictures
STEPS = 4  # epochs of gradual, one a step of its schedule
GRADUAL = [[0, 0.0], [1, 1 / 3], [2, 2 / 3], [3, 1.0]]
LOADERS = {PLAIN: "ImageFolder, PIL", "off": "finetune, no cache", "on": "finetune, cached"}
LOADER_BACKBONE = "shufflenet_v2_x0_5"  # torchvision's quickest: what is measured is the loader
LOADER_EPOCHS = 4
LOADER_PICTURES = 128

Say = Callable[[str], None]
Results = dict[str, Any]  # what is written as JSON; `measure` says what is in it


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        pictures: that train in an epoch; None for one of PICTURES.
        full: whether that is the larger number.
        loader_px: sides at which loading is measured, of pictures of a photo's size.
        threads: of each process.
    """

    contenders: tuple[str, ...]
    strategies: tuple[str, ...]
    rounds: int
    pictures: int | None
    full: bool
    batch_size: int
    backbone: str
    weights: str
    image_px: int
    loader_px: tuple[int, ...]
    device: str
    threads: int


@dataclass(frozen=True)
class Target:
    """A val accuracy to reach on real pictures; fields as in the config."""

    data: str
    weights: str
    backbone: str
    image_px: int
    epochs: int
    batch_size: int
    lr: float
    val_accuracy: float


def measure(plan: Plan, target: Target | None, keep: Callable[[Results], None], say: Say) -> Results:
    """Measure everything and return the results.

    Args:
        keep: called with the results so far after each measurement.
        say: called with a line about each measurement.

    Raises:
        UserError: the plan names something that does not exist, such as the backbone.

    Returns:
        `machine`, `plan`, `target`, `floor` (see job.floors), `skipped` (contender -> why), `runs` (strategy,
        contender, round, and what the contender's train() returned or `error`), `loader` (loader, round, px, and what
        job.loader returned or `error`), `accuracy` (as `runs`).
    """
    results: Results = {"machine": describe_machine(plan.threads), "target": target and asdict(target)}
    fields = {strategy: _fields(plan, strategy) for strategy in plan.strategies}
    floor = _execute({"kind": "floor", "fields": fields, "device": plan.device}, plan.threads)
    if "error" in floor:
        raise UserError(f"can't begin: {floor['error']}")
    results |= {"floor": floor, "skipped": left_out(plan, floor["peaks"]), "runs": [], "loader": [], "accuracy": []}
    if plan.pictures is None:
        plan = replace(plan, pictures=PICTURES["cpu" if floor["device"] == "cpu" else "gpu"][plan.full])
    results["plan"] = asdict(plan)
    names = [name for name in plan.contenders if name not in results["skipped"]]

    def note(group: str, job: dict[str, Any], threads: int, about: dict[str, Any]) -> None:
        start = time.perf_counter()
        result = _execute(job, threads)
        results[group].append({**about, **result})
        keep(results)
        outcome = result.get("error", "done")
        words = ", ".join(f"{name} {value}" for name, value in about.items())
        say(f"{group}: {words}: {outcome}, {time.perf_counter() - start:.0f} s")

    with tempfile.TemporaryDirectory() as folder:
        data, warm_up = _draw(Path(folder), plan)
        photos = draw(Path(folder) / "photos", _loader_pictures(plan), size=PHOTO_SIZE)
        for number in range(plan.rounds):
            turn = number % len(names)
            for strategy in plan.strategies:
                for name in names[turn:] + names[:turn]:
                    job = _train_job(name, {**fields[strategy], "data": data}, warm_up, again=True)
                    note("runs", job, plan.threads, {"round": number, "strategy": strategy, "contender": name})
            for px, name in itertools.product(plan.loader_px, LOADERS):
                job = {"kind": "loader", "contender": name, "fields": _loader_fields(plan, str(photos), px)}
                note("loader", job, 1, {"round": number, "px": px, "loader": name})
    if target is not None:
        for strategy in plan.strategies:
            for name in (name for name in names if not CONTENDERS[name].own_network):
                job = _train_job(name, _target_fields(target, strategy, plan.device), None, again=False)
                note("accuracy", job, plan.threads, {"strategy": strategy, "contender": name})
    return results


def left_out(plan: Plan, peaks: dict[str, float]) -> dict[str, str]:
    """Return contender -> why it can't be measured here."""
    skipped = {name: "not installed" for name in plan.contenders if not is_installed(name)}
    if OURS[1] in plan.contenders and peaks["bf16"] < peaks["fp32"] / EMULATED:
        skipped[OURS[1]] = "this device has no bf16 of its own"
    return skipped


def _draw(folder: Path, plan: Plan) -> tuple[str, str]:
    """Draw the pictures; return the folder to measure on, and a tiny one to warm up with."""
    assert plan.pictures is not None, "measure() chooses a number"
    val, test = max(len(CLASSES), plan.pictures // VAL_SHARE), len(CLASSES)
    data = draw(folder / "pictures", {"train": plan.pictures, "val": val, "test": test})
    tiny = {"train": plan.batch_size, "val": min(val, plan.batch_size), "test": test}
    return str(data), str(draw(folder / "few", tiny, seed=1))


def _fields(plan: Plan, strategy: str) -> dict[str, Any]:
    """Return the config fields of a strategy, without the data."""
    fields: dict[str, Any] = {name: getattr(plan, name) for name in ("backbone", "weights", "image_px", "batch_size")}
    fields |= {"strategy": strategy, "device": plan.device, "epochs": 1}
    return {**fields, "epochs": STEPS, "unfreeze": GRADUAL} if strategy == "gradual" else fields


def _train_job(contender: str, fields: dict[str, Any], warm_up: str | None, again: bool) -> dict[str, Any]:
    return {"kind": "train", "contender": contender, "fields": fields, "warm_up": warm_up, "again": again}


def _loader_pictures(plan: Plan) -> dict[str, int]:
    """Return the pictures by split; val and test are as small as can be."""
    few = len(CLASSES)
    return {"train": max(few, min(LOADER_PICTURES, 2 * (plan.pictures or 0))), "val": few, "test": few}


def _loader_fields(plan: Plan, data: str, px: int) -> dict[str, Any]:
    fields = {"data": data, "backbone": LOADER_BACKBONE, "weights": "none", "strategy": "full", "device": "cpu"}
    more = {"epochs": LOADER_EPOCHS, "batch_size": plan.batch_size, "image_px": px, "loader_workers": 0}
    return {**fields, **more}


def _target_fields(target: Target, strategy: str, device: str) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(target).items() if name != "val_accuracy"}
    return {**fields, "strategy": strategy, "device": device}


def _execute(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Do a job in a process of its own, with an empty cache; return its result, or its last line as `error`."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "job.json", Path(folder) / "result.json"
        given.write_text(json.dumps(job))
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "FINETUNE_CACHE": str(Path(folder) / "cache")}
        command = [sys.executable, "-m", "benchmarks.job", str(given), str(out)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode == 0:
            return dict(json.loads(out.read_text()))
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1] if lines else f"ended with exit code {done.returncode}"}
