"""How long the analysis takes for a large sweep: `python -m benchmarks.oneoff.report [RUNS] [EPOCHS]` (1,000 and 50).

Run directories are fabricated in a temporary folder, each with 341 predictions; then the whole command is timed, with
the memory it took, twice: the second time after one more run, of a recipe that val does not choose.
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
PICTURES = 341


def main(arguments: list[str]) -> int:
    """Time it, print what it took."""
    runs, epochs = (int(text) for text in (*arguments, *("1000", "50")[len(arguments) :]))
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "runs" / "large"
        for number in range(runs):
            fabricate(sweep, number, epochs)
        for words in (f"{runs} runs x {epochs} epochs", "and one more run"):
            seconds, megabytes = timed(sweep, Path(folder) / "report")
            print(f"{words}: {seconds:.1f} s, {megabytes:.0f} MB")
            fabricate(sweep, runs, epochs)
    return 0


def timed(sweep: Path, out: Path) -> tuple[float, float]:
    """Return seconds and the most memory in MB of one `python -m analysis`, all of its processes together."""
    began, most = time.perf_counter(), 0
    command = [sys.executable, "-m", "analysis", str(sweep), "--out", str(out)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, held(process))
        time.sleep(0.2)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - began, most / 1e6


def held(process: psutil.Process) -> int:
    """Return the bytes that a process and its children hold; what they share counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = one.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return total


def fabricate(sweep: Path, number: int, epochs: int) -> None:
    """Write one run directory with all that a run leaves behind but its checkpoints and its log."""
    rng = np.random.default_rng(number)
    strategy, rate, seed = STRATEGIES[number % 5], number // 5 // 5, number // 5 % 5
    run = sweep / f"{strategy}-{number:08x}"
    run.mkdir(parents=True, exist_ok=True)
    fields = {"strategy": strategy, "data": "demo", "epochs": epochs, "lr": 1e-4 * 1.1**rate, "seed": seed}
    config = to_dict(resolve(parse_config(fields, "the benchmark")))
    origin = {
        "run_id": run.name, "data_fingerprint": "aaaa", "weights_hash": "wwww", "classes": list(CLASSES), "blocks": 42,
        "splits": {"train": 2454, "val": 614, "test": PICTURES}, "device": "cpu", "threads": 1, "git_commit": "c0ffee",
        "splits_from": ["test is validation/"], "command": "python -m finetune --strategy head",
        "versions": {"python": "3.11", "torch": "2", "torchvision": "0"},
    }  # fmt: skip
    files.write_config(run, config, origin)
    score = SCORE[strategy] + rng.normal(0, 0.01)
    curve = score * (1 - np.exp(-np.arange(1, epochs + 1) / 4))
    parts = [key for key in keys.HISTORY_KEYS if key.startswith("seconds/")]
    rows = [
        {key: float(rng.random()) for key in keys.HISTORY_KEYS}
        | {"epoch": epoch, "val/accuracy": float(value), "trainable_share": 0.5, "epoch_seconds": 10.0}
        | dict.fromkeys(parts, 1.0)
        for epoch, value in enumerate(curve, start=1)
    ]
    files.write_history(run, rows)
    labels = [CLASSES[picture % 10] for picture in range(PICTURES)]
    right = rng.random(PICTURES) < score
    named = [label if good else CLASSES[int(rng.integers(10))] for label, good in zip(labels, right, strict=True)]
    answers = [
        [f"test/{label}/{picture}.jpg", label, name, *(0.82 if other == name else 0.02 for other in CLASSES)]
        for picture, (label, name) in enumerate(zip(labels, named, strict=True))
    ]
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in CLASSES)]
    write_table(run / keys.PREDICTIONS, columns, answers)
    write_thumbnails(run, sweep, CLASSES)
    test = float(np.mean([label == name for label, name in zip(labels, named, strict=True)]))
    numbers = dict.fromkeys(keys.SUMMARY_KEYS, 1.0) | {
        "state": "finished", "best/val_accuracy": float(curve[-1]), "best/val_loss": 1 - float(curve[-1]),
        "test/accuracy": test, "epochs": epochs, "full_gflops": 2.0, "test/recall": dict.fromkeys(CLASSES, test),
    }  # fmt: skip
    documents.write_json(run / keys.SUMMARY, json.loads(json.dumps(numbers)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
