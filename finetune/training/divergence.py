"""Detects losses and weights that are not finite before they are saved; the error names the settings to change."""

import math

import torch
from torch import Tensor

from finetune.errors import DivergedError
from finetune.models.classifier import Classifier


def check_losses(losses: list[Tensor], count: int, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise DivergedError if one of the newest `count` losses is not finite, after `epoch` finished epochs."""
    newest = torch.stack(losses[-count:]).tolist()
    bad = next((index for index, loss in enumerate(newest) if not math.isfinite(loss)), None)
    if bad is None:
        return
    step = len(losses) - len(newest) + bad
    last_finite = next((f"{float(loss):.4g}" for loss in reversed(losses[:step])), "none in this epoch")
    message = f"the loss is {newest[bad]} at step {step + 1} of epoch {epoch + 1}"
    raise diverged_error(message, optimizer, f"; last finite loss: {last_finite}")


def check_weights(model: Classifier, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise DivergedError if a weight or statistic is not finite.

    The loss may still be finite: the last step's loss was computed before that step.
    """
    tensors = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()  # one wait for a GPU
    bad = [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
    if bad:
        raise diverged_error(f"{bad[0]} holds values that are not finite in epoch {epoch + 1}", optimizer)


def diverged_error(message: str, optimizer: torch.optim.Optimizer, extra: str = "") -> DivergedError:
    """Return the error with the learning rates it happened at, and the settings to change."""
    rates = current_rates(optimizer)
    return DivergedError(
        f"{message} (rates: head {rates['lr/head']:.2g}, backbone {rates['lr/backbone']:.2g}{extra}). "
        "Lower lr or backbone_lr first; then raise warmup_epochs, or set precision to fp32"
    )


def current_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the learning rates of the head and of the fastest backbone block in the last step."""
    head = [group["lr"] for group in optimizer.param_groups if group["block"] is None]
    backbone = [group["lr"] for group in optimizer.param_groups if group["block"] is not None]
    return {"lr/head": max(head), "lr/backbone": max(backbone, default=0.0)}
