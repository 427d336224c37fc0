"""FLOPs of a classifier, block by block, counted by running one image through it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from finetune.models.classifier import Classifier


class Flops(NamedTuple):
    """The FLOPs of training on one image."""

    frozen: int  # forward pass of the frozen blocks
    forward: int  # forward pass of the trainable blocks
    backward: int  # backward pass, down to the first trainable block


def _convolution_backward_flops(*args: Any, out_shape: object = None) -> int:  # noqa: ARG001
    """Return the FLOPs of `aten::convolution_backward`, of whose arguments tensors are given as shapes.

    The gradient of the input costs as much as the forward pass, and so does that of the weight. torch's own count of
    the latter ignores groups: for a depth-wise convolution of C channels, it is C times too large.
    """
    output, images, weight, _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, needed = args
    forward: int = conv_flop_count(images, weight, output, transposed)
    return forward * sum(map(bool, needed[:2]))


def flop_counter() -> FlopCounterMode:
    """Return a FLOP counter for a `with` block: two per multiply-add, grouped convolutions counted by their groups."""
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward_flops}
    )


@torch.no_grad()
def forward_flops(model: Classifier, image_px: int) -> list[int]:
    """Return the forward FLOPs of one image in each block: two per multiply-add of convolutions and matrices.

    Counted in eval mode; leaves out the head, whose FLOPs are negligible.
    """
    counts = []
    with _eval_mode(model):
        hidden = _one_image(model, image_px)
        for block in model.blocks:
            with flop_counter() as counter:
                hidden = block(hidden)
            counts.append(int(counter.get_total_flops()))
    return counts


def count_flops(model: Classifier, cut: int, image_px: int) -> Flops:
    """Return the FLOPs of training on one image with the blocks before `cut` frozen, head included.

    Counted in eval mode, in which batch-norm takes a single image and costs the same. Deletes gradients, and leaves
    requires_grad set for the blocks from `cut` on.
    """
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= cut)
    with _eval_mode(model), torch.enable_grad():
        with torch.no_grad(), flop_counter() as frozen:
            hidden = model.prefix(_one_image(model, image_px), cut)
        with flop_counter() as forward:
            loss = model.suffix(hidden, cut).sum()
        with flop_counter() as backward:
            loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    return Flops(*(int(counter.get_total_flops()) for counter in (frozen, forward, backward)))


def _one_image(model: Classifier, image_px: int) -> Tensor:
    parameter = next(model.parameters())
    return torch.zeros(1, 3, image_px, image_px, device=parameter.device, dtype=parameter.dtype)


@contextmanager
def _eval_mode(model: Classifier) -> Iterator[None]:
    """Set the model to eval mode, and afterwards reset each module to its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
