"""The costs of a run for its summary: time, memory, energy, parameters, and FLOPs from a counter."""

from functools import cache

from finetune.models.flops import Flops, count_flops, forward_flops
from finetune.models.unfreezing import freeze_blocks
from finetune.run.build import RunComponents
from finetune.rundir.best_epoch import EpochMetrics
from finetune.training.metering import peak_memory_mb


def summarise_costs(components: RunComponents, history: list[EpochMetrics], wall_seconds: float) -> EpochMetrics:
    """Return the costs of a run (see rundir/keys.py: SUMMARY_KEYS).

    Args:
        wall_seconds: of the run so far, all attempts.
    """
    return {
        **_time_memory_energy(components, history, wall_seconds),
        **_sizes_and_flops(components, history),
    }


def _time_memory_energy(components: RunComponents, history: list[EpochMetrics], wall_seconds: float) -> EpochMetrics:
    training = sum(row[f"seconds/{phase}"] for row in history for phase in ("loader", "prefix", "suffix"))
    energy = [row.get("energy_joules") for row in history]  # absent in epochs of earlier versions
    return {
        "epochs": len(history),
        "epochs_to_80": next((row["epoch"] for row in history if row["val/accuracy"] >= 0.8), None),
        "wall_seconds": wall_seconds,
        "train_seconds": sum(row["epoch_seconds"] for row in history),
        "cache_seconds": sum(row["seconds/cache"] for row in history),
        "images_per_second": len(components.splits.train) * len(history) / training,
        "peak_memory_mb": peak_memory_mb(components.settings.device),
        "energy_joules": None if None in energy else sum(energy),
    }


def _sizes_and_flops(components: RunComponents, history: list[EpochMetrics]) -> EpochMetrics:
    model, full_px = components.model, components.preprocessing.crop_px
    epochs, images = len(history), len(components.splits.train)
    cuts = [components.settings.schedule.cut(epoch) for epoch in range(epochs)]
    forward = forward_flops(model, full_px)
    flops_at = cache(lambda cut, side: count_flops(model, cut, side))
    by_epoch: list[Flops] = [flops_at(cut, components.train_px(epoch)) for epoch, cut in enumerate(cuts)]
    full_flops = sum(flops_at(0, full_px))
    freeze_blocks(model, cuts[-1])  # count_flops has changed requires_grad
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks]
    head = sum(parameter.numel() for parameter in model.head.parameters())
    saved = sum(flops.frozen for flops, row in zip(by_epoch, history, strict=True) if row.get("cached_share"))
    total = sum(map(sum, by_epoch))
    return {
        "trainable_parameters": head + sum(sizes[cuts[-1] :]),
        "total_parameters": head + sum(sizes),
        "forward_gflops": sum(forward) / 1e9,
        "backward_gflops": sum(flops.backward for flops in by_epoch) / epochs / 1e9,
        "train_gflops": total * images / 1e9,
        "computed_gflops": (total - saved) * images / 1e9,
        "full_gflops": epochs * full_flops * images / 1e9,
        "frozen/block_share": sum(cuts) / (epochs * len(sizes)),
        "frozen/parameter_share": sum(sum(sizes[:cut]) for cut in cuts) / (epochs * sum(sizes)),
        "frozen/flop_share": sum(sum(forward[:cut]) for cut in cuts) / (epochs * sum(forward)),
    }
