"""Run directories, sweeps and images made by hand, for tests of what reads them. Nothing is trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from analysis.sources.run_directories import read_sweep
from analysis.sources.sweep import Sweep
from analysis.tables.arms import find_arm_fields, with_arms
from finetune.config import parse_config, to_dict
from finetune.data import thumbnails
from finetune.resolve import resolve
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.tables import write_table

CLASSES = ("disc", "square", "stripes")
COST = {
    "scratch": 1.0,
    "head": 0.35,
    "partial": 0.45,
    "gradual": 0.75,
    "lpft": 0.8,
    "full": 1.0,
}  # of a full training pass


def fabricate_run(
    folder: Path,
    name: str,
    *,
    val: float = 0.8,
    test: float = 0.8,
    seconds: float = 100.0,
    curve: list[float] | None = None,
    state: str = "finished",
    reason: str = "",
    provenance: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
    predictions: list[tuple[str, str, str, float]] | None = None,
    pictures: Path | None = None,
    **fields: Any,
) -> Path:
    """Write one run directory and return it.

    Args:
        val, test: accuracies in the summary.
        curve: val accuracy by epoch (default: up to `val` in equal steps).
        state: finished, failed, killed or unfinished.
        provenance, summary: replace what would be written; a value of None takes the key out.
        predictions: (path, label, prediction, confidence) a test image.
        images: the folder of the test images, for their thumbnails.
        fields: of the config, such as strategy, lr and seed.
    """
    run_dir = folder / name
    run_dir.mkdir(parents=True)
    config = to_dict(resolve(parse_config({"strategy": "head", "data": "demo", "epochs": 4, **fields}, "a test")))
    origin = {
        "run_id": name,
        "sweep": folder.name,
        "data_root": str(folder),
        "data_fingerprint": "aaaa",
        "weights_hash": "none" if config["weights"] == "none" else "wwww",
        "classes": list(CLASSES),
        "splits": {"train": 300, "val": 60, "test": 100},
        "git_commit": "c0ffee",
        "versions": {"python": "3.11", "torch": "2", "torchvision": "0"},
        "device": "cpu",
        "blocks": 10,
        "command": f"python -m finetune --strategy {config['strategy']} --lr {config['lr']} --seed {config['seed']}",
    }
    files.write_config(run_dir, config, _replaced(origin, provenance))
    curve = [val * epoch / config["epochs"] for epoch in range(1, config["epochs"] + 1)] if curve is None else curve
    shares = [_share(config["unfreeze"], epoch) for epoch in range(len(curve))]
    files.write_history(
        run_dir,
        [
            {
                "epoch": epoch,
                "train/loss": 2 - score,
                "train/accuracy": score,
                "val/loss": 1.5 - score,
                "val/accuracy": score,
                "val/macro_f1": score * 0.9,
                "val/min_recall": score * 0.5,
                "lr/head": config["lr"],
                "lr/backbone": config["backbone_lr"] or 0.0,
                "trainable_share": share,
                "epoch_seconds": seconds / len(curve),
            }
            for epoch, (score, share) in enumerate(zip(curve, shares, strict=True), start=1)
        ],
    )
    if state != "finished":
        files.write_state(run_dir, "running" if state == "unfinished" else state, reason)
        return run_dir
    reached = [epoch for epoch, score in enumerate(curve, start=1) if score >= 0.8]
    frozen = 1 - sum(shares) / len(shares)
    ending = {
        "state": "finished",
        "best/epoch": len(curve),
        "best/val_accuracy": val,
        "best/val_loss": 1.5 - val,
        "best/val_macro_f1": val - 0.01,
        "test/accuracy": test,
        "test/macro_f1": test - 0.01,
        "test/balanced_accuracy": test - 0.02,
        "test/min_recall": test * 0.5,
        "test/recall": dict(zip(CLASSES, (test, test * 0.5, test * 0.75), strict=True)),
        "test/loss": 1.5 - test,
        "epochs": len(curve),
        "epochs_to_80": reached[0] if reached else None,
        "train_seconds": seconds,
        "cache_seconds": 0.0,
        "images_per_second": 300 * len(curve) / seconds,
        "trainable_parameters": round(1000 + 20_000_000 * shares[-1]),
        "total_parameters": 20_001_000,
        "train_gflops": 3000 * COST[config["strategy"]],
        "full_gflops": 3000.0,
        "frozen/block_share": frozen,
        "frozen/parameter_share": frozen * 0.6,
        "frozen/flop_share": frozen * 0.9,
    }
    if predictions is not None:
        write_predictions(run_dir, predictions)
    if pictures is not None:
        thumbnails.write_thumbnails(run_dir, pictures, CLASSES)
    documents.write_json(run_dir / keys.SUMMARY, _replaced(ending, summary))
    return run_dir


def _replaced(values: dict[str, Any], other: dict[str, Any] | None) -> dict[str, Any]:
    return {
        name: value
        for name, value in {**values, **(other or {})}.items()
        if value is not None or name == "epochs_to_80"
    }


def _share(schedule: list[list[float]], epochs_finished: int) -> float:
    """Return the share of the backbone that trains once so many epochs are finished."""
    return [share for epoch, share in schedule if epoch <= epochs_finished][-1]


def write_predictions(run_dir: Path, answers: list[tuple[str, str, str, float]], classes: tuple[str, ...] = ()) -> None:
    """Write predictions.csv from (path, label, prediction, confidence); the rest is shared evenly."""
    classes = classes or tuple(sorted({name for _, label, prediction, _ in answers for name in (label, prediction)}))
    others = max(len(classes) - 1, 1)
    rows = [
        [path, label, said, *(sure if name == said else (1 - sure) / others for name in classes)]
        for path, label, said, sure in answers
    ]
    columns = ["path", "label", "prediction", *(f"{keys.PROBABILITY}{name}" for name in classes)]
    write_table(run_dir / keys.PREDICTIONS, columns, rows)


def tear_history(run_dir: Path) -> None:
    """Cut the last line of the history in the middle, as a crash does."""
    path = run_dir / keys.HISTORY
    path.write_text(path.read_text() + json.dumps({"epoch": 99, "val/accuracy": 0.5})[:20])


def fabricate_pictures(
    root: Path, classes: tuple[str, ...] = CLASSES, each: int = 10, px: int = 48
) -> list[tuple[str, str]]:
    """Draw `each` images of each class, wide and tall ones, as JPEG; return (path below root, class) of all."""
    rng = np.random.default_rng(0)
    made = []
    for number, name in enumerate(classes):
        (root / "test" / name).mkdir(parents=True)
        for index in range(each):
            size = (px, px * 2 // 3) if index % 2 else (px * 2 // 3, px)
            image = Image.new("RGB", size, tuple(int(value) for value in rng.integers(120, 255, 3)))
            ink = tuple(int(value) for value in rng.integers(0, 110, 3))
            draw, (wide, high), side = ImageDraw.Draw(image), size, px // 3
            box = (wide // 2 - side // 2, high // 2 - side // 2, wide // 2 + side // 2, high // 2 + side // 2)
            (draw.ellipse, draw.rectangle)[number % 2](box, fill=ink)
            for line in range(number):
                draw.line((0, 4 * line + 2, wide, 4 * line + 2), fill=ink, width=1)
            path = f"test/{name}/{index:03}.jpg"
            image.save(root / path)
            made.append((path, name))
    return made


def read_arms(folder: Path) -> Sweep:
    """Return the sweep of a folder of runs, with the column `arm`."""
    sweep = read_sweep(folder)
    return with_arms(sweep, find_arm_fields(sweep.finished["recipe"].unique()))
