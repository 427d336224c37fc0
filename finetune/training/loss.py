"""Forward pass and loss of a batch."""

import torch
from torch import Tensor
from torch.nn import functional

from finetune.models.classifier import Classifier


def compute_logits(model: Classifier, hidden: Tensor, cut: int, autocast: torch.dtype | None) -> Tensor:
    """Return the logits (B, classes) float32 for what enters block `cut`.

    Args:
        autocast: lower precision of the network, None for float32. Softmax and loss are computed in float32 anyway.
    """
    with torch.autocast(hidden.device.type, autocast, enabled=autocast is not None):
        logits = model.suffix(hidden, cut)
    return logits.float()


def batch_loss(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean over images of the cross-entropy times the weight of the image's class, 0-d.

    torch's own weighted loss differs in two ways. Its mean divides by the weights of the batch, so that an image
    would count more or less depending on the other images of its batch, and splitting a batch into micro-batches would
    change its gradient; here it divides by the number of images, and the mean over an epoch is the weighted loss of
    the complete training split (whose mean weight is 1). And with label smoothing torch weights each class's share of
    the target, which draws every image towards the rare classes; here the complete loss of an image, with its target
    smoothed evenly over all classes, has one weight.

    Args:
        logits: (B, classes) float32.
        labels: (B,) int64; or, for mixed images, (B, classes) float32 whose rows add up to 1. The loss of such an
            image is the mean of the losses for each label, weighted by their shares and the weights of their classes.
        label_smoothing: share of the target spread over all classes.
        class_weights: (classes,), or None for the plain mean.
    """
    if class_weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if labels.dim() == 1:
        weights = class_weights[labels]
    else:
        labels = labels * class_weights
        weights = labels.sum(dim=1)
        labels = labels / weights[:, None]
    losses = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    return (losses * weights).mean()


def hard_labels(labels: Tensor) -> Tensor:
    """Return the label with the largest share in each image, (B,) int64, for labels as `batch_loss` takes them."""
    return labels if labels.dim() == 1 else labels.argmax(dim=1)
