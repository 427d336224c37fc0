"""AdamW, and the memory that it needs for each parameter that trains."""

from typing import Any

import torch
from torch import nn

from finetune.errors import TrainingError
from finetune.models.classifier import Classifier
from finetune.rundir.failures import is_out_of_memory
from finetune.system.atomic import format_bytes


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return the optimiser of these groups (see `strategies.param_groups`).

    Fused: one kernel instead of a loop over parameters, and one that needs no memory beside that of `reserve`.
    """
    return torch.optim.AdamW(groups, fused=True)


def allocate_state(optimizer: torch.optim.Optimizer, where: str) -> None:
    """Give every parameter that trains the state that AdamW would give it in its first step.

    In the step, memory could run out with some parameters changed and others not, and no way back. Before it, nothing
    has changed; and once the state is there, gradients alone can run out of memory, which take smaller pieces then.

    Args:
        where: for the message, such as "at epoch 4, where 33% of the backbone trains".

    Raises:
        TrainingError: there is no room for it.
    """
    fresh = [
        parameter
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.requires_grad and not optimizer.state.get(parameter)
    ]
    try:
        for parameter in fresh:
            # As in torch/optim/adam.py, `_init_group`.
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = sum(2 * parameter.numel() * parameter.element_size() for parameter in fresh)
        raise TrainingError(
            f"out of memory {where}: AdamW keeps {format_bytes(size)} of the parameters that begin to train there. "
            "Choose a smaller backbone, let less of it train, or free memory that other processes hold"
        ) from error


ParamGroups = list[dict[str, Any]]  # an optimiser's param groups


def param_groups(
    model: Classifier, lr: float, backbone_lr: float | None, decay: float, weight_decay: float
) -> ParamGroups:
    """Return AdamW's groups: head and every block, each with and without weight decay, from head to input.

    A group carries `block` (its index, or None for the head) and `peak_lr`, which `rates` scales. The last block
    trains at `backbone_lr`, each one before it at `decay` times the rate of its successor. Biases and norms (1-D
    parameters) get no weight decay. A frozen block's parameters have no gradient, so AdamW leaves them alone.

    Args:
        backbone_lr: None where no block ever trains.
        decay: factor from one block to the next, away from the head (Howard and Ruder, ULMFiT, arXiv 1801.06146,
            section 3.2, layer by layer; block by block here).
    """
    last = len(model.blocks) - 1
    parts: list[tuple[int | None, nn.Module, float]] = [(None, model.head, lr)]
    if backbone_lr is not None:
        parts += [(index, model.blocks[index], backbone_lr * decay ** (last - index)) for index in range(last, -1, -1)]
    groups = []
    for index, module, peak in parts:
        name = "head" if index is None else f"block {index}"
        flat = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
        rest = [parameter for parameter in module.parameters() if parameter.ndim > 1]
        common = {"block": index, "peak_lr": peak, "lr": peak}
        groups.append({"name": name, "params": rest, "weight_decay": weight_decay, **common})
        groups.append({"name": f"{name}, no decay", "params": flat, "weight_decay": 0.0, **common})
    return [group for group in groups if group["params"]]
