"""Networks: every torchvision backbone is its blocks in order, with a new head."""

import pytest
import torch
import torchvision
from torch import nn

from finetune.config import BACKBONES
from finetune.errors import ConfigError
from finetune.models.classifier import Classifier, build_classifier, build_meta_network, build_network, count_blocks
from finetune.models.families import split_into_blocks
from finetune.models.flops import count_flops, forward_flops

# One or two of every family, small enough for a test; blocks as DESIGN counts them.
BLOCKS = {
    "efficientnet_v2_s": 42,
    "squeezenet1_0": 9,
    "resnet18": 9,
    "mobilenet_v3_small": 14,
    "convnext_tiny": 19,
    "vit_b_16": 13,
    "swin_t": 13,
    "alexnet": 7,
    "densenet121": 59,
    "googlenet": 12,
    "mnasnet0_5": 18,
    "mobilenet_v2": 19,
    "regnet_y_400mf": 17,
    "shufflenet_v2_x0_5": 18,
    "swin_v2_t": 13,
    "vgg11_bn": 10,
}


@pytest.mark.parametrize(("backbone", "count"), BLOCKS.items())
def test_blocks_pool_and_last_layer_are_the_network(backbone: str, count: int) -> None:
    """Running the blocks in order is torchvision's own forward, for the whole network and all its parameters."""
    torch.manual_seed(0)
    network = build_network(backbone, 64).eval()
    images = torch.randn(2, 3, 64, 64)
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))  # noqa: ARG005
    with torch.no_grad():
        network(images)
        blocks, pool, features = split_into_blocks(network)
        hidden = images
        for block in blocks:
            hidden = block(hidden)
        pooled = pool(hidden)
    expected = seen[0].mean(dim=(2, 3)) if isinstance(last, nn.Conv2d) else seen[0]
    torch.testing.assert_close(pooled, expected)
    assert pooled.shape == (2, features)
    assert len(blocks) == count
    assert all(list(block.parameters()) for block in blocks)
    ours = {id(parameter) for block in blocks for parameter in block.parameters()}
    assert ours == {id(parameter) for parameter in network.parameters()} - {id(p) for p in last.parameters()}


@pytest.mark.slow
def test_every_backbone_of_torchvision_is_known_and_splits() -> None:
    """The list is torchvision's own, and every network on it has blocks and a head for 7 classes."""
    assert set(BACKBONES) == set(torchvision.models.list_models(module=torchvision.models))
    slow = {name for name in BACKBONES if name.startswith("regnet") and name[-4:] in ("28gf", "32gf", "16gf", "_8gf")}
    for backbone in set(BACKBONES) - slow:
        model = build_classifier(build_meta_network(backbone, 224), 7, 0.1)
        assert len(model.blocks) > 5, backbone
        assert model.head[-1].out_features == 7, backbone


def test_the_new_head_starts_from_zero() -> None:
    """Before training all classes are equally likely."""
    model = build_classifier(build_network("squeezenet1_1", 32), 5, 0.0).eval()
    assert torch.equal(model(torch.randn(2, 3, 32, 32)), torch.zeros(2, 5))


def test_flops_of_blocks_are_those_known() -> None:
    """EfficientNetV2-S at 224 px: 5.70 GFLOP forward, two a multiply-add, of which 81% in the first two thirds."""
    model = build_classifier(build_network("efficientnet_v2_s", 224), 10, 0.0)
    model.train()
    flops = forward_flops(model, 224)
    assert model.training
    assert sum(flops) / 1e9 == pytest.approx(5.70, abs=0.06)
    assert sum(flops[:28]) / sum(flops) == pytest.approx(0.8145, abs=0.002)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_flops_of_grouped_convolutions_are_those_of_the_closed_form(groups: int) -> None:
    """Forward 2 x 8 x (8 / groups) x 9 a position; the first layer's gradient needs no gradient of the images."""
    layers = [nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)]
    model = Classifier([nn.Sequential(*layers)], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 8, 2, 0.0)
    first, grouped, head = 2 * 3 * 8 * 16, 2 * 8 * (8 // groups) * 9 * 16, 2 * 8 * 2
    flops = count_flops(model, 0, 4)
    assert flops.frozen == 0
    assert flops.forward == first + grouped + head
    assert flops.backward == first + 2 * grouped + 2 * head


def test_blocks_that_are_made_for_one_size_are_refused_at_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's are cut by a trace, which may hold sizes; that is looked at for start_px."""
    pytest.importorskip("timm")

    def check(network: object, image_px: int, other_px: int, groups: object) -> None:  # noqa: ARG001
        raise ValueError(f"made for {image_px}, not for {other_px}")

    monkeypatch.setattr("finetune.models.families.check_other_size", check)
    assert count_blocks("timm/test_resnet", 64) == 5
    with pytest.raises(ConfigError, match=r"start_px: timm/test_resnet can't .*made for 64, not for 32"):
        count_blocks("timm/test_resnet", 64, 32)


@pytest.mark.parametrize(("backbone", "image_px"), [("vit_b_16", 100), ("inception_v3", 32), ("alexnet", 16)])
def test_a_size_the_network_can_not_take_is_refused(backbone: str, image_px: int) -> None:
    """Before anything starts, and naming the field."""
    with pytest.raises(ConfigError, match="image_px"):
        count_blocks(backbone, image_px)
