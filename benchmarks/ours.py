"""This project's own run, through its public entry, timed by what it writes into its run directory."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.plain import pick_device
from benchmarks.timer import peak_memory
from finetune.config import Config, to_dict
from finetune.resolve import resolve
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.output import logging_to


def train(config: Config, precision: str, again: bool = False) -> dict[str, Any]:
    """Run `config`; return `epochs` and the peak memory as `plain.train` does, with more parts of each epoch.

    Every epoch sees views of its own, as in a loop that augments anew, and what it caches counts as its work.

    Args:
        precision: of training, fp32 or bf16.
        again: add `further`, the epochs of a second run with another rate, which finds the first one's caches.

    Raises:
        UserError: data or weights do not fit.
    """
    config = resolve(config.model_copy(update={"precision": precision, "views": config.epochs, "cache": "on"}))
    with tempfile.TemporaryDirectory() as folder:
        result = _train(config, Path(folder) / "first")
        if again:
            other = config.model_copy(update={"lr": config.lr * 0.9})
            result["further"] = _train(other, Path(folder) / "second")["epochs"]
    return {**result, "config": to_dict(config), **peak_memory(pick_device(config.device))}


def loader_seconds(config: Config, cache: str) -> list[float]:
    """Return the seconds that each epoch of a run that trains everything waited for pictures and for caches to fill.

    Args:
        cache: on or off, see `Config.cache`.
    """
    with tempfile.TemporaryDirectory() as folder:
        epochs = _train(resolve(config.model_copy(update={"cache": cache})), Path(folder) / "run")["epochs"]
    return [row["seconds/loader"] + row["seconds/cache"] for row in epochs]


def _train(config: Config, run_dir: Path) -> dict[str, Any]:
    with logging_to("stderr"):
        run(config, run_dir)
    rows, _ = files.read_history(run_dir)
    # Checkpoints are left out: none of the others writes any.
    kept = [name for name in rows[0] if name.startswith("seconds/") and name != "seconds/save"]
    epochs = [{name: row[name] for name in ("epoch", "val/accuracy", *kept)} for row in rows]
    return {"epochs": epochs, "test/accuracy": (documents.read_json(run_dir / keys.SUMMARY) or {})["test/accuracy"]}
