"""The end of a run: the test, once, at the epoch that val chose; predictions and summary."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from finetune import record, showcase, strategies
from finetune.best import Row, best_row
from finetune.checkpoint import load_checkpoint
from finetune.clock import Clock
from finetune.errors import Interrupted
from finetune.evaluate import accuracy, by_class, cross_entropy, predict
from finetune.feed import Feed
from finetune.memory import peak_memory_mb
from finetune.model import forward_flops
from finetune.parts import Parts, cut_at
from finetune.train import Standing


def finish(
    run_dir: Path,
    parts: Parts,
    feed: Feed,
    standing: Standing,
    interrupted: Callable[[], bool],
    log: Callable[[str], None],
) -> None:
    """Test at the epoch that val chose, and write predictions and summary."""

    def on_batch() -> None:
        if interrupted():
            raise Interrupted("stopped in the test")

    best = best_row(standing.history)
    parts.model.load_state_dict(load_checkpoint(run_dir / record.BEST)["model"])
    test = feed.test(cut_at(parts, best["epoch"] - 1), Clock())
    scores, labels = predict(parts.model, test, parts.loop.device, parts.loop.autocast, on_batch, log)
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
        "micro_batch": min(standing.micro_batch or parts.config.batch_size, parts.config.batch_size),
        **_costs(parts, standing.history),
    }
    record.write_json(run_dir / record.SUMMARY, summary)
    worst = min(recall, key=recall.__getitem__)
    log(
        f"finished: best val {best['val/accuracy']:.1%} after epoch {best['epoch']}, "
        f"test {summary['test/accuracy']:.1%}, macro-F1 {summary['test/macro_f1']:.1%}, "
        f"lowest recall {recall[worst]:.1%} ({worst})"
    )


def _costs(parts: Parts, history: list[Row]) -> Row:
    """Return the summary's costs and sizes (see record.SUMMARY_KEYS)."""
    blocks, images = parts.model.blocks, len(parts.splits.train)
    flops = forward_flops(parts.model, parts.to.crop_px)
    trainable = [len(blocks) - cut_at(parts, epoch) for epoch in range(len(history))]
    training = sum(row[f"seconds/{part}"] for row in history for part in ("loader", "prefix", "suffix"))
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    head = sum(parameter.numel() for parameter in parts.model.head.parameters())
    epochs, count = len(history), len(blocks)
    cost = sum(strategies.training_flops(flops, number) for number in trainable)
    frozen = [count - number for number in trainable]
    return {
        "epochs": epochs,
        "epochs_to_80": next((row["epoch"] for row in history if row["val/accuracy"] >= 0.8), None),
        "train_seconds": sum(row["epoch_seconds"] for row in history),
        "cache_seconds": sum(row["seconds/cache"] for row in history),
        "images_per_second": images * epochs / training,
        "peak_memory_mb": peak_memory_mb(parts.loop.device),
        "trainable_parameters": head + sum(sizes[count - trainable[-1] :]),
        "total_parameters": head + sum(sizes),
        "train_gflops": cost * images / 1e9,
        "full_gflops": epochs * strategies.training_flops(flops, count) * images / 1e9,
        "frozen/block_share": sum(frozen) / (epochs * count),
        "frozen/parameter_share": sum(sum(sizes[:cut]) for cut in frozen) / (epochs * sum(sizes)),
        "frozen/flop_share": sum(sum(flops[:cut]) for cut in frozen) / (epochs * sum(flops)),
    }
