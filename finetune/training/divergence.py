"""Numbers that are not finite: found before they are saved, and told with the settings to change."""

import math

import torch
from torch import Tensor

from finetune.errors import DivergedError
from finetune.models.classifier import Classifier


def check_losses(losses: list[Tensor], count: int, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise DivergedError at the first of the newest `count` losses that is not finite."""
    newest = torch.stack(losses[-count:]).tolist()
    bad = next((index for index, loss in enumerate(newest) if not math.isfinite(loss)), None)
    if bad is None:
        return
    step = len(losses) - len(newest) + bad
    good = next((f"{float(loss):.4g}" for loss in reversed(losses[:step])), "none in this epoch")
    what = f"the loss is {newest[bad]} at step {step + 1} of epoch {epoch + 1}"
    raise diverged(what, optimizer, f"; last finite loss: {good}")


def check_weights(model: Classifier, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise DivergedError if what is about to be saved holds numbers that are not finite: the loss may still be.

    The last step's own loss was computed before that step.
    """
    tensors = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()]).tolist()  # one wait for a GPU
    bad = [name for name, good in zip(tensors, finite, strict=True) if not good]
    if bad:
        raise diverged(f"{bad[0]} holds numbers that are not finite in epoch {epoch + 1}", optimizer)


def diverged(what: str, optimizer: torch.optim.Optimizer, more: str = "") -> DivergedError:
    """Return the error that says what happened at which rates, and the settings to change."""
    rate = rates_of(optimizer)
    return DivergedError(
        f"{what} (rates: head {rate['lr/head']:.2g}, backbone {rate['lr/backbone']:.2g}{more}). "
        "Lower lr or backbone_lr first; then raise warmup_epochs, or set precision to fp32"
    )


def rates_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the rates of the head and of the fastest backbone block, as the last step used them."""
    head = [group["lr"] for group in optimizer.param_groups if group["block"] is None]
    backbone = [group["lr"] for group in optimizer.param_groups if group["block"] is not None]
    return {"lr/head": max(head), "lr/backbone": max(backbone, default=0.0)}
