"""The lines that a run logs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from finetune.config import to_dict
from finetune.data.splits import Splits
from finetune.run.build import RunComponents
from finetune.rundir.best_epoch import EpochMetrics
from finetune.training.state import TrainState


def start_lines(components: RunComponents, name: str, attempt: int) -> list[str]:
    """Return the lines that describe a run at its start.

    Args:
        attempt: how often the run has been started.
    """
    config, splits, settings = components.config, components.splits, components.settings
    sizes = f"{len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test"
    fields = ", ".join(f"{field} {value}" for field, value in to_dict(config).items())
    precision = "bf16" if settings.autocast else "fp32"
    return [
        f"run {name}, attempt {attempt}, on {settings.device} in {precision}, {torch.get_num_threads()} threads",
        f"images of {len(splits.classes)} classes: {sizes}",
        *splits.notes,
        *_class_size_lines(splits, config.balance),
        f"config: {fields}",
        f"{len(components.model.blocks)} backbone blocks; unfreezes {settings.schedule.steps}",
    ]


def _class_size_lines(splits: Splits, balance: str) -> list[str]:
    """Return a line on the smallest and largest class, if classes differ in size."""
    sizes = Counter(sample.label for sample in splits.train).most_common()
    (largest, max_size), (smallest, min_size) = sizes[0], sizes[-1]
    if max_size == min_size:
        return []
    extremes = f"from {min_size} of {splits.classes[smallest]} to {max_size} of {splits.classes[largest]}"
    return [f"training images per class: {extremes}; balance {balance}"]


def resume_line(state: TrainState) -> str:
    """Return the line on where a resumed run continues."""
    step = f", step {state.epoch.steps}" if state.epoch.steps else ""
    return f"resumes after epoch {len(state.history)}{step}"


def epoch_line(row: EpochMetrics, epochs: int) -> str:
    """Return the line on a finished epoch."""
    loading = row["seconds/loader"] / row["epoch_seconds"] if row["epoch_seconds"] else 0.0
    return (
        f"epoch {row['epoch']}/{epochs}  train {row['train/loss']:.3f} {row['train/accuracy']:.1%}  "
        f"val {row['val/loss']:.3f} {row['val/accuracy']:.1%} macro-F1 {row['val/macro_f1']:.1%}  "
        f"rates {row['lr/head']:.2g} {row['lr/backbone']:.2g}  "
        f"trains {row['trainable_share']:.0%} of the backbone  {row['epoch_seconds']:.1f} s, "
        f"{loading:.0%} of it waiting for images"
    )


def finish_line(summary: Mapping[str, Any]) -> str:
    """Return the line on a finished run."""
    recall = summary["test/recall"]
    worst = min(recall, key=recall.__getitem__)
    return (
        f"finished: best val {summary['best/val_accuracy']:.1%} after epoch {summary['best/epoch']}, "
        f"test {summary['test/accuracy']:.1%}, macro-F1 {summary['test/macro_f1']:.1%}, "
        f"lowest recall {recall[worst]:.1%} ({worst})"
    )
