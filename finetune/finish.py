"""The end of a run: the test, once, at the epoch that val chose; predictions and summary."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune import calibration, showcase
from finetune.checkpoint import load_checkpoint
from finetune.clock import Clock
from finetune.costs import costs
from finetune.errors import DivergedError, RunInterrupted, TrainingError, UserError
from finetune.evaluate import Floats, Ints, accuracy, by_class, cross_entropy, predict
from finetune.fed import Fed
from finetune.feed import Feed
from finetune.parts import Parts, cut_at
from finetune.rundir import keys
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.rundir.integrity import write_checksums
from finetune.system import documents
from finetune.system.tables import write_table
from finetune.train import Standing


def finish(
    run_dir: Path,
    parts: Parts,
    feed: Feed,
    standing: Standing,
    interrupted: Callable[[], bool],
    log: Callable[[str], None],
    wall_seconds: Callable[[], float],
) -> None:
    """Test at the epoch that val chose, and write predictions and summary.

    Args:
        wall_seconds: of the run up to now, all attempts.
    """

    def on_batch() -> None:
        if interrupted():
            raise RunInterrupted("stopped in the test")

    def scores_of(fed: Fed) -> tuple[Floats, Ints]:
        return predict(parts.model, fed, parts.loop.device, parts.loop.autocast, on_batch, log)

    best = best_row(standing.history)
    parts.model.load_state_dict(_weights_of(run_dir / keys.BEST, best))
    cut = cut_at(parts, best["epoch"] - 1)
    temperature = calibration.temperature(*scores_of(feed.val(cut, Clock())))
    scores, labels = scores_of(feed.test(cut, Clock()))
    _check_scores(scores, parts)
    classes = parts.splits.classes
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in classes)]
    rows = (
        [picture.path, classes[picture.label], classes[row.argmax()], *(f"{p:.6g}" for p in row)]
        for picture, row in zip(parts.splits.test, torch.from_numpy(scores).exp().numpy(), strict=True)
    )
    write_table(run_dir / keys.PREDICTIONS, columns, rows)
    showcase.write_thumbnails(run_dir, parts.splits.root, classes)
    fared = by_class(scores, labels)
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
        "test/ece": calibration.calibration_error(scores, labels),
        "test/ece_scaled": calibration.calibration_error(calibration.scaled(scores, temperature), labels),
        "micro_batch": min(standing.micro_batch or parts.config.batch_size, parts.config.batch_size),
        **costs(parts, standing.history, wall_seconds()),
    }
    # All results are written. Later a crash could leave it for good: a finished run is not looked at again.
    (run_dir / keys.PREVIOUS).unlink(missing_ok=True)
    write_checksums(run_dir, {keys.SUMMARY: documents.json_text(summary)})
    documents.write_json(run_dir / keys.SUMMARY, summary)
    worst = min(recall, key=recall.__getitem__)
    log(
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


def _check_scores(scores: Floats, parts: Parts) -> None:
    """Raise DivergedError where a picture got answers that are no numbers, though val was fine."""
    bad = np.flatnonzero(np.isnan(scores).any(axis=1))
    if len(bad):
        raise DivergedError(
            f"the network gives no numbers for {len(bad)} of {len(scores)} test pictures, such as "
            f"{parts.splits.test[bad[0]].path}. Lower lr or backbone_lr, or set precision to fp32"
        )
