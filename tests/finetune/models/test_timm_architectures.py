"""timm's architectures as they are: blocks of popular ones, every cut of small ones, and a sample of all names."""

import copy
import random

import pytest
import torch
from torch import nn

from finetune.models.classifier import Classifier, build_timm_network
from finetune.models.families import layer_groups
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.graph_blocks import Blocks, cut_into_blocks
from finetune.models.unfreezing import freeze_blocks
from tests.finetune.models.test_timm_blocks import stirred, trained

timm = pytest.importorskip("timm")

BLOCKS = {
    **{"resnet50": 17, "seresnext50_32x4d": 17, "resnetv2_50": 17, "convnext_tiny": 22, "convnextv2_tiny": 22},
    **{"efficientnet_b0": 18, "tf_efficientnetv2_s": 42, "tf_efficientnet_lite0": 18, "mobilenetv3_large_100": 18},
    **{"mobilenetv4_conv_small": 19, "regnety_016": 28, "nfnet_f0": 14, "densenet121": 8, "vgg16": 14},
    **{"vit_tiny_patch16_224": 13, "vit_base_patch16_224": 13, "vit_base_patch14_dinov2": 13, "hiera_tiny_224": 13},
    **{"eva02_base_patch14_224": 13, "beitv2_base_patch16_224": 13, "deit3_small_patch16_224": 13},
    **{"swin_tiny_patch4_window7_224": 16, "maxvit_tiny_tf_224": 13, "coatnet_0_rw_224": 15, "levit_128": 15},
    **{"xcit_small_12_p16_224": 16, "mobilevit_s": 12, "fastvit_t8": 15, "caformer_s18": 22, "tiny_vit_5m_224": 16},
    **{"repvgg_a0": 22, "ghostnet_100": 19, "hrnet_w18": 7, "pvt_v2_b0": 12, "edgenext_small": 22},
    **{"crossvit_tiny_240": 1},
}
KINDS = [  # a few of different data flow, the sides at which they are quick
    *(("resnet18", 64), ("efficientnet_b0", 64), ("vit_tiny_patch16_224", 224), ("densenet121", 64)),
    *(("swin_tiny_patch4_window7_224", 224), ("eva02_tiny_patch14_224", 224), ("vit_small_patch16_dinov3", 256)),
    *(("mobilevit_xxs", 64), ("levit_128s", 224), ("efficientvit_m0", 224), ("coat_lite_tiny", 224)),
    *(
        ("maxvit_rmlp_pico_rw_256", 256),
        ("crossvit_tiny_240", 240),
        ("inception_v3", 96),
        ("xcit_nano_12_p16_224", 224),
    ),
]


def cut(network: nn.Module, px: int) -> Blocks:
    return cut_into_blocks(network, px, layer_groups(network))


def outline(arch: str) -> Blocks:
    """The blocks on device meta, for images of the architecture's own size."""
    px = timm.get_pretrained_cfg_value(arch, "input_size")[-1]
    with torch.device("meta"):
        network = build_timm_network(arch, px)
    return cut(network.to("meta"), px)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "px"), KINDS)
def test_blocks_of_all_kinds_compute_what_the_network_computes(arch: str, px: int) -> None:
    """Bit for bit: features, gradients and statistics."""
    network = stirred(arch, px)
    twin, blocks = copy.deepcopy(network), cut(network, px).blocks
    chain, images = nn.Sequential(*blocks), torch.randn(3, 3, px, px)
    assert len(blocks) > 5 or arch == "crossvit_tiny_240"
    with torch.no_grad():
        assert torch.equal(chain.eval()(images), twin.eval()(images))
    step, expected = trained(network, chain, images), trained(twin, twin, images)
    assert len(step) == len(expected)
    assert all(torch.equal(*values) for values in zip(step, expected, strict=True))


@pytest.mark.parametrize(("arch", "px"), [("test_vit", 160), ("test_efficientnet", 64)])
def test_at_every_cut_a_step_changes_the_suffix_alone(arch: str, px: int) -> None:
    """The prefix's activations give the model's logits, and frozen blocks keep their weights and statistics."""
    torch.manual_seed(0)
    blocks, features = cut(stirred(arch, px), px)
    model, images = Classifier(blocks, nn.Identity(), features, 3, 0.0), torch.randn(4, 3, px, px)
    nn.init.normal_(model.head[-1].weight)
    for boundary in range(len(blocks) + 1):
        prefix = FrozenPrefix(model, boundary, boundary)
        with torch.no_grad():
            hidden = prefix.run(images, 0, boundary)
            torch.testing.assert_close(model.eval().suffix(hidden, boundary), model(images), rtol=1e-3, atol=1e-4)
        freeze_blocks(model.train(), boundary)
        before = copy.deepcopy([block.state_dict() for block in blocks])
        optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], 1e-3)
        model(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        changed = [
            any(not torch.equal(value, block.state_dict()[name]) for name, value in state.items())
            for block, state in zip(blocks, before, strict=True)
        ]
        assert changed == [index >= boundary for index in range(len(blocks))]


@torch.no_grad()
def test_batch_norms_of_timm_are_folded_into_its_convolutions() -> None:
    """All of an EfficientNet with "same" padding, whose convolutions and batch-norms are classes of timm's own."""
    network = stirred("tf_efficientnet_lite0", 32)
    blocks, features = cut(network, 32)
    model = Classifier(blocks, nn.Identity(), features, 2, 0.0).eval()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 49
    prefix, hidden = FrozenPrefix(model), torch.randn(2, 3, 32, 32)
    for index, block in enumerate(blocks):
        expected = block(hidden)
        hidden = prefix.run(hidden, index, index + 1)
        assert (hidden - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert not any(isinstance(module, nn.BatchNorm2d) for module in prefix._blocks[index].modules())


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "count"), BLOCKS.items())
def test_popular_architectures_have_the_blocks_that_they_are_known_for(arch: str, count: int) -> None:
    """Planned without weights."""
    assert len(outline(arch).blocks) == count


@pytest.mark.slow
def test_a_sample_of_all_architectures_can_be_cut() -> None:
    """Each is outlined without a fault; nearly all have blocks enough for every strategy."""
    names = [name for name in timm.list_models() if not name.endswith("_enc")]  # encoders return no (B, D)
    sample = random.Random(1).sample([name for name in names if not name.startswith("sequencer2d")], 12)
    counts = {name: len(outline(name).blocks) for name in sample}
    print(f"{sum(count > 5 for count in counts.values())} of {len(counts)} have 6 blocks or more: {counts}")
    assert sum(count > 5 for count in counts.values()) >= 10
