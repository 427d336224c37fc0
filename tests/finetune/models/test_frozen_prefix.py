"""The frozen part as it is computed: the same numbers, without what training would change."""

import pytest
import torch
from torch import Tensor, nn

from finetune.config import BACKBONES
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.frozen_prefix import FrozenPrefix, fold
from finetune.models.unfreezing import freeze_blocks

FAMILIES = (
    *("efficientnet_v2_s", "squeezenet1_0", "resnet18", "mobilenet_v3_small", "convnext_tiny", "vit_b_16", "swin_t"),
    *("alexnet", "densenet121", "googlenet", "mnasnet0_5", "mobilenet_v2", "regnet_y_400mf", "shufflenet_v2_x0_5"),
    *("swin_v2_t", "vgg11_bn"),
)


def classifier(backbone: str, px: int = 64) -> Classifier:
    """Return a network whose batch-norm statistics are not the initial ones."""
    torch.manual_seed(0)
    model = build_classifier(build_network(backbone, px), 3, 0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    nn.init.normal_(model.head[-1].weight)
    return model


def smallest_px(backbone: str) -> int:
    """Return an image's side that the network can take, for a quick test."""
    sides = {"maxvit_t": 224, "inception_v3": 80, "vit_h_14": 28, "alexnet": 64}
    return sides.get(backbone, 64 if backbone.startswith("squeezenet") else 32)


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by rounding alone; with random weights, their size can be anything."""
    return bool((found - expected).abs().max() <= 1e-3 * expected.abs().max())


@pytest.mark.parametrize(
    "backbone",
    [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES if name not in FAMILIES)],
)
@torch.no_grad()
def test_prefix_and_suffix_are_the_model_at_every_cut(backbone: str) -> None:
    """The prefix as it is and folded; folded, it computes each block from what it computed before."""
    px = smallest_px(backbone)
    model = classifier(backbone, px).eval()
    images = torch.randn(2, 3, px, px).to(memory_format=torch.channels_last)
    expected, prefix, blocks = model(images), FrozenPrefix(model), len(model.blocks)
    hidden = unfolded = images
    for cut in range(1, blocks + 1):
        hidden, unfolded = prefix.run(hidden, cut - 1, cut), model.blocks[cut - 1](unfolded)
        assert close(hidden, model.pool(unfolded) if cut == blocks else unfolded)
        if blocks < 20:  # a suffix at each cut takes a time quadratic in the blocks
            assert close(model.suffix(hidden, cut), expected)
    assert close(model.suffix(hidden, blocks), expected)
    for cut in (0, 1, blocks // 2, blocks):
        assert torch.equal(model.suffix(model.prefix(images, cut), cut), expected)


def test_batch_norm_is_folded_where_it_follows_a_convolution() -> None:
    """No batch-norm is left in the blocks of EfficientNet and ResNet, and the block itself is as it was."""
    for backbone in ("efficientnet_v2_s", "resnet18"):
        model = classifier(backbone).eval()
        for block in model.blocks:
            before = {name: value.clone() for name, value in block.state_dict().items()}
            assert not any(isinstance(module, nn.BatchNorm2d) for module in fold(block).modules())
            assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())


def test_what_cannot_be_folded_is_used_as_it_is() -> None:
    """DenseNet's norms come before its convolutions; a convolution that two read is no pair with the norm after it."""

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            hidden: Tensor = self.conv(images)
            normed: Tensor = self.norm(hidden)
            return normed + hidden

    class Untraceable(Read):
        def forward(self, images: Tensor) -> Tensor:
            normed: Tensor = self.norm(self.conv(images))
            return normed if normed.sum() > 0 else -normed

    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    for block in (Read().eval(), Untraceable().eval()):
        with torch.no_grad():
            torch.testing.assert_close(fold(block)(images), block(images))


def test_a_frozen_prefix_is_in_eval_mode_without_autograd_and_in_float32() -> None:
    """Whatever the mode of the model and the precision around it; twice the same, though there is dropout."""
    model = classifier("efficientnet_v2_s", 32)
    freeze_blocks(model, len(model.blocks) - 10)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    prefix, images = FrozenPrefix(model), torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (prefix.run(images, 0, 32) for _ in range(2))
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
