"""timm's networks as blocks compute what they compute as a whole, whatever their architecture."""

import copy

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("timm")

from finetune.models.classifier import build_timm_network
from finetune.models.families import split_into_blocks

NETWORKS = [  # arch, image_px, blocks
    ("test_resnet", 64, 5),
    ("test_vit", 160, 7),
    ("test_efficientnet", 64, 7),
    ("test_convnext", 64, 13),
    ("test_mambaout", 64, 9),
]


def stirred(arch: str, px: int) -> nn.Module:
    """A network without zero gammas, tiny layer scales or unset statistics, which would hide a missing part."""
    torch.manual_seed(0)
    network = build_timm_network(arch, px)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim < 2 or value.std() == 0:
                value.copy_((value.mean() > 0.5).float() + 0.1 * torch.randn(value.shape))
        for norm in norms:
            norm.momentum = 1.0
        network.train()(torch.randn(4, 3, px, px))
        for norm in norms:
            norm.momentum = 0.1
    return network


def trained(network: nn.Module, run: nn.Module, images: Tensor) -> list[Tensor]:
    """The features, gradients and statistics of a training step's forward and backward pass."""
    network.train(), run.train()
    torch.manual_seed(1)
    features = run(images)
    (features * torch.linspace(-1, 1, features.shape[1])).sum().backward()
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    return [features, *gradients, *network.buffers()]


@pytest.mark.parametrize(("arch", "px", "count"), NETWORKS)
def test_blocks_compute_what_the_network_computes(arch: str, px: int, count: int) -> None:
    network = stirred(arch, px)
    twin = copy.deepcopy(network)
    blocks, _, feature_count = split_into_blocks(network)
    chain = nn.Sequential(*blocks)
    assert len(blocks) == count
    images = torch.randn(5, 3, px, px)
    with torch.no_grad():
        features = twin.eval()(images)
        assert features.shape == (5, feature_count)
        assert torch.equal(chain.eval()(images), features)
        torch.testing.assert_close(chain(images[:1]), features[:1])
    step, expected = trained(network, chain, images), trained(twin, twin, images)
    assert len(step) == len(expected)
    assert all(torch.equal(*values) for values in zip(step, expected, strict=True))
