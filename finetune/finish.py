"""The end of a run: the test, once, at the epoch that val chose; predictions and summary."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from finetune import calibration, record, showcase
from finetune.best import best_row
from finetune.checkpoint import load_checkpoint
from finetune.clock import Clock
from finetune.costs import costs
from finetune.errors import Interrupted
from finetune.evaluate import Floats, Ints, accuracy, by_class, cross_entropy, predict
from finetune.fed import Fed
from finetune.feed import Feed
from finetune.parts import Parts, cut_at
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
            raise Interrupted("stopped in the test")

    def scores_of(fed: Fed) -> tuple[Floats, Ints]:
        return predict(parts.model, fed, parts.loop.device, parts.loop.autocast, on_batch, log)

    best = best_row(standing.history)
    parts.model.load_state_dict(load_checkpoint(run_dir / record.BEST)["model"])
    cut = cut_at(parts, best["epoch"] - 1)
    temperature = calibration.temperature(*scores_of(feed.val(cut, Clock())))
    scores, labels = scores_of(feed.test(cut, Clock()))
    classes = parts.splits.classes
    columns = ["path", "label", "prediction", *(record.PROBABILITY + name for name in classes)]
    rows = (
        [picture.path, classes[picture.label], classes[row.argmax()], *(f"{p:.6g}" for p in row)]
        for picture, row in zip(parts.splits.test, torch.from_numpy(scores).exp().numpy(), strict=True)
    )
    record.write_table(run_dir / record.PREDICTIONS, columns, rows)
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
    record.write_json(run_dir / record.SUMMARY, summary)
    worst = min(recall, key=recall.__getitem__)
    log(
        f"finished: best val {best['val/accuracy']:.1%} after epoch {best['epoch']}, "
        f"test {summary['test/accuracy']:.1%}, macro-F1 {summary['test/macro_f1']:.1%}, "
        f"lowest recall {recall[worst]:.1%} ({worst})"
    )
