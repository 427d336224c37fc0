"""This project's own run, timed by what it writes into its run directory."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.meters import peak_memory
from finetune.config import Config, to_dict
from finetune.models.device import device_of
from finetune.resolve import resolve
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.output import logging_to


def train(config: Config, precision: str, again: bool = False) -> dict[str, Any]:
    """Run `config`; return `epochs` and the peak memory as `plain.train` does, with more parts of each epoch.

    Every epoch has views of its own, as in a loop that augments anew, and filling caches counts as work.

    Args:
        precision: of training, fp32 or bf16.
        again: add `further`, the epochs of a second run with another rate, which reuses the caches of the first.

    Raises:
        UserError: data or weights do not fit.
    """
    config = resolve(config.model_copy(update={"precision": precision, "views": config.epochs, "cache": "on"}))
    result = _run(config)
    if again:
        result["further"] = _run(config.model_copy(update={"lr": config.lr * 0.9}))["epochs"]
    return {**result, "config": to_dict(config), **peak_memory(device_of(config.device))}


def loader_seconds(config: Config, cache: str) -> list[float]:
    """Return the seconds for which each epoch of a run waited for images and for caches to fill.

    Args:
        cache: on or off, see `Config.cache`.
    """
    epochs = _run(resolve(config.model_copy(update={"cache": cache})))["epochs"]
    return [row["seconds/loader"] + row["seconds/cache"] for row in epochs]


def _run(config: Config) -> dict[str, Any]:
    """Return the rows of the epochs, without checkpoints, which the other contenders do not write; and the test."""
    with tempfile.TemporaryDirectory() as folder, logging_to("stderr"):
        run_dir = Path(folder) / "run"
        run(config, run_dir)
        rows, _ = files.read_history(run_dir)
        summary = documents.read_json(run_dir / keys.SUMMARY) or {}
    kept = [name for name in rows[0] if name.startswith("seconds/") and name != "seconds/save"]
    epochs = [{name: row[name] for name in ("epoch", "val/accuracy", *kept)} for row in rows]
    return {"epochs": epochs, "test/accuracy": summary["test/accuracy"]}
