"""How long the analysis of a large sweep takes: `python -m benchmarks.oneoff.report [RUNS] [EPOCHS]` (1,000 and 50).

Run directories are fabricated in a temporary folder, each with 341 predictions.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from finetune.config import parse_config, to_dict
from finetune.data.thumbnails import write_thumbnails
from finetune.resolve import resolve
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.tables import write_table

CLASSES = tuple(f"class {number}" for number in range(10))
STRATEGIES = ("scratch", "head", "partial", "gradual", "full")
SCORE = {"scratch": 0.4, "head": 0.75, "partial": 0.86, "gradual": 0.87, "full": 0.86}
IMAGES = 341
ONE_HOT = np.eye(len(CLASSES), dtype=bool)


def main(arguments: list[str]) -> int:
    """Print seconds and memory, and return the exit code."""
    runs, epochs = (int(text) for text in (*arguments, *("1000", "50")[len(arguments) :]))
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "runs" / "large"
        for number in range(runs):
            fabricate(sweep, number, epochs)
        seconds, megabytes = time_analysis(sweep, Path(folder) / "report")
        print(f"{runs} runs x {epochs} epochs: {seconds:.1f} s, {megabytes:.0f} MB")
    return 0


def time_analysis(sweep: Path, out: Path) -> tuple[float, float]:
    """Return seconds and the most memory in MB of one `python -m analysis`, all of its processes together."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "analysis", str(sweep), "--out", str(out)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory_of(process))
        time.sleep(0.2)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - started, peak / 1e6


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process and its children hold; shared memory counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = member.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return total


def fabricate(sweep: Path, number: int, epochs: int) -> None:
    """Write one run directory with all files of a run but its checkpoints and its log."""
    rng = np.random.default_rng(number)
    strategy, rate, seed = STRATEGIES[number % 5], number // 5 // 5, number // 5 % 5
    run = sweep / f"{strategy}-{number:08x}"
    run.mkdir(parents=True, exist_ok=True)
    fields = {"strategy": strategy, "data": "demo", "epochs": epochs, "lr": 1e-4 * 1.1**rate, "seed": seed}
    config = to_dict(resolve(parse_config(fields, "the benchmark")))
    provenance = {
        "run_id": run.name, "data_fingerprint": "aaaa", "weights_hash": "wwww", "classes": list(CLASSES), "blocks": 42,
        "splits": {"train": 2454, "val": 614, "test": IMAGES}, "device": "cpu", "threads": 1, "git_commit": "c0ffee",
        "splits_from": ["test is validation/"], "command": "python -m finetune --strategy head",
        "versions": {"python": "3.11", "torch": "2", "torchvision": "0"},
    }  # fmt: skip
    files.write_config(run, config, provenance)
    score = SCORE[strategy] + rng.normal(0, 0.01)
    curve = score * (1 - np.exp(-np.arange(1, epochs + 1) / 4))
    phases = [key for key in keys.HISTORY_KEYS if key.startswith("seconds/")]
    rows = [
        {key: float(rng.random()) for key in keys.HISTORY_KEYS}
        | {"epoch": epoch, "val/accuracy": float(value), "trainable_share": 0.5, "epoch_seconds": 10.0}
        | dict.fromkeys(phases, 1.0)
        for epoch, value in enumerate(curve, start=1)
    ]
    files.write_history(run, rows)
    labels = np.arange(IMAGES) % len(CLASSES)
    named = np.where(rng.random(IMAGES) < score, labels, rng.integers(len(CLASSES), size=IMAGES))
    table = [
        [f"test/{CLASSES[label]}/{image}.jpg", CLASSES[label], CLASSES[name], *np.where(ONE_HOT[name], 0.82, 0.02)]
        for image, (label, name) in enumerate(zip(labels, named, strict=True))
    ]
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in CLASSES)]
    write_table(run / keys.PREDICTIONS, columns, table)
    write_thumbnails(run, sweep, CLASSES)
    test = float((labels == named).mean())
    numbers = dict.fromkeys(keys.SUMMARY_KEYS, 1.0) | {
        "state": "finished", "best/val_accuracy": float(curve[-1]), "best/val_loss": 1 - float(curve[-1]),
        "test/accuracy": test, "epochs": epochs, "full_gflops": 2.0, "test/recall": dict.fromkeys(CLASSES, test),
    }  # fmt: skip
    documents.write_json(run / keys.SUMMARY, json.loads(json.dumps(numbers)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
