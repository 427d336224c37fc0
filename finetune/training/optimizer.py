"""AdamW: its parameter groups, and its state, which is allocated before the first gradients."""

from typing import Any

import torch
from torch import nn

from finetune.errors import TrainingError
from finetune.models.classifier import Classifier
from finetune.rundir.failures import is_out_of_memory
from finetune.system.atomic import format_bytes

ParamGroups = list[dict[str, Any]]


def adamw(groups: ParamGroups) -> torch.optim.AdamW:
    """Return AdamW for these groups.

    Fused: one kernel instead of a loop over parameters, and no memory beyond that of `allocate_state`.
    """
    return torch.optim.AdamW(groups, fused=True)


def allocate_state(optimizer: torch.optim.Optimizer, context: str) -> None:
    """Allocate, for every trainable parameter, the state that AdamW would allocate in its first step.

    Within a step, memory could run out after some parameters have changed, which can't be undone. Before the step,
    nothing has changed; and once the state exists, only gradients can run out of memory, and micro-batches help there.

    Args:
        context: for the message, such as "at epoch 4, where 33% of the backbone trains".

    Raises:
        TrainingError: out of memory.
    """
    new = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad and not optimizer.state.get(parameter)
    ]
    try:
        for parameter in new:
            # As in torch/optim/adam.py, `_init_group`.
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = sum(2 * parameter.numel() * parameter.element_size() for parameter in new)
        raise TrainingError(
            f"out of memory {context}: AdamW needs {format_bytes(size)} for the parameters that start to train. "
            "Choose a smaller backbone, let less of it train, or free memory that other processes hold"
        ) from error


def param_groups(
    model: Classifier, lr: float, backbone_lr: float | None, decay: float, weight_decay: float
) -> ParamGroups:
    """Return the groups of head and blocks, from head to input, each with and without weight decay.

    A group has the keys `block` (its index, None for the head) and `peak_lr`, which `lr_multiplier` scales. The last
    block trains at `backbone_lr`, each block before it at `decay` times the rate of the next one. Biases and norms (1-D
    parameters) get no weight decay. The parameters of a frozen block have no gradient, so AdamW does not change them.
    All groups exist from the first step; unfreezing changes flags, never the list of groups.

    Args:
        backbone_lr: None if no block ever trains.
        decay: factor from one block to the one before it (Howard and Ruder, ULMFiT, arXiv 1801.06146, section 3.2,
            there by layer, here by block).
    """
    last = len(model.blocks) - 1
    modules: list[tuple[int | None, nn.Module, float]] = [(None, model.head, lr)]
    if backbone_lr is not None:
        modules += [
            (index, model.blocks[index], backbone_lr * decay ** (last - index)) for index in range(last, -1, -1)
        ]
    groups = []
    for index, module, peak_lr in modules:
        name = "head" if index is None else f"block {index}"
        weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        biases = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        common = {"block": index, "peak_lr": peak_lr, "lr": peak_lr}
        groups.append({"name": name, "params": weights, "weight_decay": weight_decay, **common})
        groups.append({"name": f"{name}, no decay", "params": biases, "weight_decay": 0.0, **common})
    return [group for group in groups if group["params"]]
