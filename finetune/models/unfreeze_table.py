"""Table of what strategies train per epoch, from the network's shapes alone: it loads and trains nothing."""

from collections.abc import Iterable
from typing import Any

from finetune.config import Config, Strategy
from finetune.models.classifier import build_classifier, build_meta_network
from finetune.models.flops import forward_flops
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.pretrained import preprocessing_of
from finetune.resolve import resolve


def unfreeze_table(config: Config, strategies: Iterable[Strategy], classes: int) -> list[dict[str, Any]]:
    """Return one row per strategy and epoch of a run with this config.

    Keys: `strategy`; `epoch`, from 1 on; `trainable_share` of the backbone's blocks, as in a run's history;
    `parameter_share` of the network's parameters, head included; `flop_share` of the backbone's forward FLOPs;
    `trainable_parameters`, head included.
    """
    px = preprocessing_of(config.backbone, config.weights, config.image_px).crop_px
    model = build_classifier(build_meta_network(config.backbone, px), classes, config.dropout).to("meta")
    flops, blocks = forward_flops(model, px), len(model.blocks)
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks]
    head = sum(parameter.numel() for parameter in model.head.parameters())
    rows = []
    for strategy in strategies:
        schedule = UnfreezeSchedule.of(resolve(config.model_copy(update={"strategy": strategy})), blocks)
        for epoch in range(config.epochs):
            cut = schedule.cut(epoch)
            trainable = head + sum(sizes[cut:])
            rows.append(
                {
                    "strategy": strategy,
                    "epoch": epoch + 1,
                    "trainable_share": schedule.share(epoch),
                    "parameter_share": trainable / (head + sum(sizes)),
                    "flop_share": sum(flops[cut:]) / sum(flops),
                    "trainable_parameters": trainable,
                }
            )
    return rows
