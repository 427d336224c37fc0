"""What a run cost: time, memory, energy, sizes, and FLOPs from a counter."""

from functools import cache

from finetune.data.transforms import side_at
from finetune.models.flops import Flops, count_flops, forward_flops
from finetune.models.unfreezing import freeze_blocks
from finetune.run.build import RunComponents
from finetune.rundir.best_epoch import EpochMetrics
from finetune.training.metering import peak_memory_mb


def costs(parts: RunComponents, history: list[EpochMetrics], wall_seconds: float) -> EpochMetrics:
    """Return the summary's costs and sizes (see record.SUMMARY_KEYS).

    Args:
        wall_seconds: of the run so far, all attempts.
    """
    config, blocks, images = parts.config, parts.model.blocks, len(parts.splits.train)
    forward = forward_flops(parts.model, parts.to.crop_px)
    counted = cache(lambda cut, side: count_flops(parts.model, cut, side))
    epochs, count = len(history), len(blocks)
    cuts = [parts.loop.schedule.cut(epoch) for epoch in range(epochs)]
    sides = [
        parts.to.crop_px if cut else side_at(epoch, config.epochs, config.start_px, parts.to.crop_px)
        for epoch, cut in enumerate(cuts)
    ]
    of_epoch: list[Flops] = [counted(cut, side) for cut, side in zip(cuts, sides, strict=True)]
    freeze_blocks(parts.model, cuts[-1])  # counting has set other blocks free
    training = sum(row[f"seconds/{part}"] for row in history for part in ("loader", "prefix", "suffix"))
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    head = sum(parameter.numel() for parameter in parts.model.head.parameters())
    saved = [flops.frozen if row.get("cached_share") else 0 for flops, row in zip(of_epoch, history, strict=True)]
    total = sum(map(sum, of_epoch))
    energy = [row.get("energy_joules") for row in history]  # absent where an earlier version began the run
    return {
        "epochs": epochs,
        "epochs_to_80": next((row["epoch"] for row in history if row["val/accuracy"] >= 0.8), None),
        "wall_seconds": wall_seconds,
        "train_seconds": sum(row["epoch_seconds"] for row in history),
        "cache_seconds": sum(row["seconds/cache"] for row in history),
        "images_per_second": images * epochs / training,
        "peak_memory_mb": peak_memory_mb(parts.loop.device),
        "energy_joules": None if None in energy else sum(energy),
        "trainable_parameters": head + sum(sizes[cuts[-1] :]),
        "total_parameters": head + sum(sizes),
        "forward_gflops": sum(forward) / 1e9,
        "backward_gflops": sum(flops.backward for flops in of_epoch) / epochs / 1e9,
        "train_gflops": total * images / 1e9,
        "computed_gflops": (total - sum(saved)) * images / 1e9,
        "full_gflops": epochs * sum(counted(0, parts.to.crop_px)) * images / 1e9,
        "frozen/block_share": sum(cuts) / (epochs * count),
        "frozen/parameter_share": sum(sum(sizes[:cut]) for cut in cuts) / (epochs * sum(sizes)),
        "frozen/flop_share": sum(sum(forward[:cut]) for cut in cuts) / (epochs * sum(forward)),
    }
