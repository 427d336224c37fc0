"""The loss that training makes smaller."""

from torch import Tensor
from torch.nn import functional


def batch_loss(logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean over pictures of the cross-entropy, each picture's times the weight of its class, 0-d.

    torch's own weighted loss means something else in two ways. Its mean divides by the weights of the batch, so that a
    picture would count more or less with the company it happens to be in, and cutting a batch into micro-batches would
    change its gradient; here it divides by the number of pictures, and the mean over an epoch is the weighted loss of
    the whole training split (whose mean weight is 1). And with label smoothing torch weights each class's share of
    the target, which draws every picture towards the rare classes; here a picture's whole loss, with its target
    smoothed evenly over all classes, has one weight.

    Args:
        logits: (B, classes) float32.
        labels: (B,) int64; or, of mixed pictures, (B, classes) float32 whose rows add up to 1. The loss of such a
            picture is the mean of what it would be with each label, by their shares, each with its class's weight.
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
    """Return the label that counts most in each picture, (B,) int64, of labels as `batch_loss` takes them."""
    return labels if labels.dim() == 1 else labels.argmax(dim=1)
