"""The end of a run: the test, once, at the epoch that val chose; predictions and summary."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.data import thumbnails
from finetune.errors import DivergedError, RunInterrupted, TrainingError, UserError
from finetune.run.build import RunComponents
from finetune.run.checkpoint import load_checkpoint
from finetune.run.costs import costs
from finetune.rundir import keys
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.rundir.integrity import write_checksums
from finetune.system import documents
from finetune.system.atomic import delete
from finetune.system.tables import write_table
from finetune.training import metrics
from finetune.training.batch_source import BatchSource, BatchStream
from finetune.training.evaluation import predict
from finetune.training.loop import TrainState
from finetune.training.metering import PhaseTimer
from finetune.training.metrics import Floats, Ints, accuracy, cross_entropy, per_class_scores

logger = logging.getLogger(__name__)


def finish(
    run_dir: Path,
    parts: RunComponents,
    feed: BatchSource,
    standing: TrainState,
    interrupted: Callable[[], bool],
    wall_seconds: Callable[[], float],
) -> None:
    """Test at the epoch that val chose, and write predictions and summary.

    Args:
        wall_seconds: of the run up to now, all attempts.
    """

    def on_batch() -> None:
        if interrupted():
            raise RunInterrupted("stopped in the test")

    def scores_of(fed: BatchStream) -> tuple[Floats, Ints]:
        return predict(parts.model, fed, parts.loop.device, parts.loop.autocast, on_batch)

    best = best_row(standing.history)
    parts.model.load_state_dict(_weights_of(run_dir / keys.BEST, best))
    cut = parts.loop.schedule.cut(best["epoch"] - 1)
    temperature = metrics.fit_temperature(*scores_of(feed.val(cut, PhaseTimer())))
    scores, labels = scores_of(feed.test(cut, PhaseTimer()))
    _check_scores(scores, parts)
    classes = parts.splits.classes
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in classes)]
    rows = (
        [picture.path, classes[picture.label], classes[row.argmax()], *(f"{p:.6g}" for p in row)]
        for picture, row in zip(parts.splits.test, torch.from_numpy(scores).exp().numpy(), strict=True)
    )
    write_table(run_dir / keys.PREDICTIONS, columns, rows)
    thumbnails.write_thumbnails(run_dir, parts.splits.root, classes)
    fared = per_class_scores(scores, labels)
    recall = {name: float(share) for name, share in zip(classes, fared.recall, strict=True) if share == share}  # no NaN
    summary = {
        "state": "finished",
        "best/epoch": best["epoch"],
        "best/val_accuracy": best["val/accuracy"],
        "best/val_loss": best["val/loss"],
        "best/val_macro_f1": best.get("val/macro_f1"),  # absent where an earlier version began the run
        "test/accuracy": accuracy(scores, labels),
        "test/macro_f1": float(np.nanmean(fared.f1)),
        "test/balanced_accuracy": float(np.nanmean(fared.recall)),
        "test/min_recall": min(recall.values()),
        "test/recall": recall,
        "test/loss": cross_entropy(scores, labels),
        "temperature": temperature,
        "test/ece": metrics.calibration_error(scores, labels),
        "test/ece_scaled": metrics.calibration_error(metrics.scale_log_probabilities(scores, temperature), labels),
        "micro_batch": min(standing.micro_batch or parts.config.batch_size, parts.config.batch_size),
        **costs(parts, standing.history, wall_seconds()),
    }
    # All results are written. Later a crash could leave it for good: a finished run is not looked at again.
    delete(run_dir / keys.PREVIOUS)
    write_checksums(run_dir, {keys.SUMMARY: documents.json_text(summary)})
    documents.write_json(run_dir / keys.SUMMARY, summary)
    worst = min(recall, key=recall.__getitem__)
    logger.info(
        f"finished: best val {best['val/accuracy']:.1%} after epoch {best['epoch']}, "
        f"test {summary['test/accuracy']:.1%}, macro-F1 {summary['test/macro_f1']:.1%}, "
        f"lowest recall {recall[worst]:.1%} ({worst})"
    )


def _weights_of(path: Path, best: EpochMetrics) -> dict[str, Tensor]:
    """Return the weights of the epoch that val chose.

    Raises:
        TrainingError: the file is damaged, or has those of another epoch.
    """
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise TrainingError(f"{error}; the same command makes it anew") from error
    if content["history"][-1] != best:
        raise TrainingError(f"{path} is not of epoch {best['epoch']}, which val chose; the same command makes it anew")
    weights: dict[str, Tensor] = content["model"]
    return weights


def _check_scores(scores: Floats, parts: RunComponents) -> None:
    """Raise DivergedError where a picture got answers that are no numbers, though val was fine."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise DivergedError(
            f"the network gives no numbers for {len(bad)} of {len(scores)} test pictures, such as "
            f"{parts.splits.test[bad[0]].path}. Lower lr or backbone_lr, or set precision to fp32"
        )
