"""AdamW, and the memory that it needs for each parameter that trains."""

from typing import Any

import torch

from finetune.errors import TrainingError
from finetune.rundir.failures import is_out_of_memory
from finetune.system.atomic import format_bytes


def adamw(groups: list[dict[str, Any]]) -> torch.optim.AdamW:
    """Return the optimiser of these groups (see `strategies.param_groups`).

    Fused: one kernel instead of a loop over parameters, and one that needs no memory beside that of `reserve`.
    """
    return torch.optim.AdamW(groups, fused=True)


def reserve(optimizer: torch.optim.Optimizer, where: str) -> None:
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
