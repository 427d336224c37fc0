"""The end of a run: tests the best epoch once; writes predictions, thumbnails and summary."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.data import thumbnails
from finetune.errors import DivergedError, RunInterrupted, TrainingError, UserError
from finetune.run.build import RunComponents
from finetune.run.checkpoint import load_checkpoint
from finetune.run.costs import summarise_costs
from finetune.run.log_lines import finish_line
from finetune.rundir import keys
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.rundir.integrity import write_checksums
from finetune.system import documents
from finetune.system.atomic import delete
from finetune.system.tables import write_table
from finetune.training import metrics
from finetune.training.batch_source import BatchSource
from finetune.training.evaluation import predict
from finetune.training.metering import PhaseTimer
from finetune.training.metrics import Floats, Ints
from finetune.training.state import TrainState

logger = logging.getLogger(__name__)


def finish(
    run_dir: Path,
    components: RunComponents,
    source: BatchSource,
    state: TrainState,
    interrupted: Callable[[], bool],
    wall_seconds: Callable[[], float],
) -> None:
    """Test the best epoch, and write predictions and summary.

    Args:
        wall_seconds: of the run up to now, all attempts.
    """
    settings = components.settings
    best = best_row(state.history)
    cut = settings.schedule.cut(best["epoch"] - 1)

    def on_batch() -> None:
        if interrupted():
            raise RunInterrupted("stopped in the test")

    def scores_of(split: str) -> tuple[Floats, Ints]:
        stream = source.evaluation(split, cut, PhaseTimer())
        return predict(components.model, stream, settings.device, settings.autocast, on_batch)

    components.model.load_state_dict(_best_weights(run_dir / keys.BEST, best))
    temperature = metrics.fit_temperature(*scores_of("val"))
    scores, labels = scores_of("test")
    _check_scores(scores, components)
    _write_predictions(run_dir, components, scores)
    summary = {
        "state": "finished",
        **_best_metrics(best),
        **_test_metrics(scores, labels, components.splits.classes, temperature),
        "micro_batch": min(state.micro_batch or components.config.batch_size, components.config.batch_size),
        **summarise_costs(components, state.history, wall_seconds()),
    }
    # Delete previous.pt before the summary exists: a finished run is not visited again, so a crash in between would
    # leave the file for ever.
    delete(run_dir / keys.PREVIOUS)
    write_checksums(run_dir, {keys.SUMMARY: documents.json_text(summary)})
    documents.write_json(run_dir / keys.SUMMARY, summary)
    logger.info(finish_line(summary))


def _best_weights(path: Path, best: EpochMetrics) -> dict[str, Tensor]:
    """Return the weights of the best epoch.

    Raises:
        TrainingError: the file is damaged, or holds another epoch.
    """
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise TrainingError(f"{error}; the same command rebuilds it") from error
    if content["history"][-1] != best:
        raise TrainingError(
            f"{path} does not hold epoch {best['epoch']}, the best on val; the same command rebuilds it"
        )
    weights: dict[str, Tensor] = content["model"]
    return weights


def _check_scores(scores: Floats, components: RunComponents) -> None:
    """Raise DivergedError if a test image has NaN for an output, although val was fine."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise DivergedError(
            f"the network's outputs are NaN for {len(bad)} of {len(scores)} test images, such as "
            f"{components.splits.test[bad[0]].path}. Lower lr or backbone_lr, or set precision to fp32"
        )


def _write_predictions(run_dir: Path, components: RunComponents, scores: Floats) -> None:
    """Write the predictions on test, and the thumbnails of some of its images."""
    classes = components.splits.classes
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in classes)]
    rows = (
        [sample.path, classes[sample.label], classes[row.argmax()], *(f"{p:.6g}" for p in row)]
        for sample, row in zip(components.splits.test, torch.from_numpy(scores).exp().numpy(), strict=True)
    )
    write_table(run_dir / keys.PREDICTIONS, columns, rows)
    thumbnails.write_thumbnails(run_dir, components.splits.root, classes)


def _best_metrics(best: EpochMetrics) -> dict[str, Any]:
    return {
        "best/epoch": best["epoch"],
        "best/val_accuracy": best["val/accuracy"],
        "best/val_loss": best["val/loss"],
        "best/val_macro_f1": best.get("val/macro_f1"),  # absent in epochs of earlier versions
    }


def _test_metrics(scores: Floats, labels: Ints, classes: tuple[str, ...], temperature: float) -> dict[str, Any]:
    by_class = metrics.per_class_scores(scores, labels)
    recall = {name: float(value) for name, value in zip(classes, by_class.recall, strict=True) if not np.isnan(value)}
    return {
        "test/accuracy": metrics.accuracy(scores, labels),
        "test/macro_f1": float(np.nanmean(by_class.f1)),
        "test/balanced_accuracy": float(np.nanmean(by_class.recall)),
        "test/min_recall": min(recall.values()),
        "test/recall": recall,
        "test/loss": metrics.cross_entropy(scores, labels),
        "temperature": temperature,
        "test/ece": metrics.calibration_error(scores, labels),
        "test/ece_scaled": metrics.calibration_error(metrics.scale_log_probabilities(scores, temperature), labels),
    }
