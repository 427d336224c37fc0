"""Splits networks into blocks: timm's by their data flow, torchvision's by one small function per family.

Each of these returns the blocks in order, the parameter-free layers before the classifier (pool), and the
classifier's last layer, which is replaced. The classifier's other layers (one of MobileNetV3, two of VGG) are
pretrained, and are blocks.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlock
from torchvision.models.densenet import _DenseBlock
from torchvision.models.squeezenet import Fire
from torchvision.models.swin_transformer import SwinTransformerBlock

from finetune.models.graph_blocks import check_other_size, cut_into_blocks

BlockSplit = tuple[list[nn.Module], list[nn.Module], nn.Module]


def split_into_blocks(network: nn.Module) -> tuple[list[nn.Module], nn.Module, int]:
    """Return the blocks, the pooling to features (B, D), and D.

    Raises:
        ValueError: torchvision's family is not known here, or timm's network does not return features (B, D).
    """
    if hasattr(network, "pretrained_cfg"):  # timm's
        cut = cut_into_blocks(network, _timm_px(network), layer_groups(network))
        return cut.blocks, nn.Identity(), cut.features
    for family, split in _FAMILIES.items():
        if isinstance(network, family):
            blocks, pool, last = split(network)
            features = last.in_channels if isinstance(last, nn.Conv2d) else last.in_features
            return blocks, _chain(pool), int(features)  # type: ignore[arg-type]
    known = ", ".join(family.__name__ for family in _FAMILIES)
    raise ValueError(f"{type(network).__name__} can't be split into blocks yet. Known families: {known}")


def check_other_px(network: nn.Module, other_px: int) -> None:
    """Raise ValueError if the network's blocks depend on the image size, and `other_px` is not its own."""
    if hasattr(network, "pretrained_cfg"):
        check_other_size(network, _timm_px(network), other_px, layer_groups(network))


def _timm_px(network: nn.Module) -> int:
    """Return the side of the images that a network of timm was built for."""
    settings: Any = network.pretrained_cfg
    return int(settings["input_size"][-1])


def layer_groups(network: Any) -> dict[str, int] | None:
    """Return the layer group of each parameter, counted from the input; None if timm does not define them."""
    from timm.models import group_parameters

    try:
        groups: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    except Exception:  # a matcher that does not fit its own network raises many kinds
        return None
    names = [name for name, _ in network.named_parameters()]
    return groups if set(groups) == set(names) else None


def _chain(modules: Iterable[nn.Module]) -> nn.Module:
    chain = list(modules)
    return chain[0] if len(chain) == 1 else nn.Sequential(*chain)


def _split_after(modules: Iterable[nn.Module], kind: type[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """Group modules into blocks that end with a module of this kind; return the blocks, and the modules after them.

    So what lies between two stages (down-sampling) goes with the block after it.
    """
    blocks: list[nn.Module] = []
    group: list[nn.Module] = []
    for module in modules:
        group.append(module)
        if isinstance(module, kind):
            blocks.append(_chain(group))
            group = []
    return blocks, group


def _split_before(modules: Iterable[nn.Module], is_first: Callable[[nn.Module], bool]) -> list[nn.Module]:
    """Group modules into blocks: each module for which `is_first` is true begins a block."""
    groups: list[list[nn.Module]] = []
    for module in modules:
        if not groups or is_first(module):
            groups.append([])
        groups[-1].append(module)
    return [_chain(group) for group in groups]


def _resnet(net: models.ResNet) -> BlockSplit:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4], [net.avgpool, nn.Flatten()], net.fc


def _efficientnet(net: models.EfficientNet) -> BlockSplit:
    stem, *stages, last_conv = net.features
    blocks = [stem, *(block for stage in stages for block in stage), last_conv]
    return blocks, [net.avgpool, nn.Flatten()], net.classifier[-1]


def _mobilenet_v2(net: models.MobileNetV2) -> BlockSplit:
    return list(net.features), [nn.AdaptiveAvgPool2d(1), nn.Flatten()], net.classifier[-1]


def _mobilenet_v3(net: models.MobileNetV3) -> BlockSplit:
    hidden_linear, activation, _, last = net.classifier
    return [*net.features, nn.Sequential(net.avgpool, nn.Flatten(), hidden_linear, activation)], [nn.Identity()], last


def _convnext(net: models.ConvNeXt) -> BlockSplit:
    norm, flatten, last = net.classifier
    stem, *stages = net.features
    modules = [module for stage in stages for module in (stage if isinstance(stage[0], CNBlock) else [stage])]
    *blocks, last_block = _split_after(modules, CNBlock)[0]
    return [stem, *blocks, nn.Sequential(last_block, net.avgpool, norm)], [flatten], last


def _swin(net: models.SwinTransformer) -> BlockSplit:
    stem, *stages = net.features
    modules = [module for stage in stages for module in (stage if isinstance(stage, nn.Sequential) else [stage])]
    *blocks, last_block = _split_after(modules, SwinTransformerBlock)[0]
    return [stem, *blocks, nn.Sequential(last_block, net.norm)], [net.permute, net.avgpool, net.flatten], net.head


class _TransformerStem(nn.Module):
    """Patches, class token and position embedding of a vision transformer; torchvision applies them in forward()."""

    def __init__(self, net: models.VisionTransformer) -> None:
        super().__init__()
        self.conv_proj, self.class_token = net.conv_proj, net.class_token
        self.pos_embedding, self.dropout = net.encoder.pos_embedding, net.encoder.dropout

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(images.shape[0], -1, -1), patches], dim=1)
        hidden: Tensor = self.dropout(tokens + self.pos_embedding)
        return hidden


class _ClassToken(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def _vit(net: models.VisionTransformer) -> BlockSplit:
    *layers, last_layer = net.encoder.layers
    return (
        [_TransformerStem(net), *layers, nn.Sequential(last_layer, net.encoder.ln)],
        [_ClassToken()],
        net.heads[-1],
    )


def _squeezenet(net: models.SqueezeNet) -> BlockSplit:
    # Its classifier is a 1x1 convolution, a ReLU and a mean. A linear layer after the mean is equivalent but for the
    # ReLU, which only loses gradients of class scores; and the head gets features (B, 512), as in other networks.
    blocks = _split_before(net.features, lambda module: isinstance(module, Fire))
    return blocks, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], net.classifier[1]


def _vgg_or_alexnet(net: models.VGG | models.AlexNet) -> BlockSplit:
    *hidden, last = net.classifier
    modules = [*net.features, net.avgpool, nn.Flatten(), *hidden]
    return _split_before(modules, lambda module: isinstance(module, nn.Conv2d | nn.Linear)), [nn.Identity()], last


class _ConcatLayer(nn.Module):
    """One layer of DenseNet: its input with its output appended as new channels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([hidden, self.layer(hidden)], dim=1)


def _densenet(net: models.DenseNet) -> BlockSplit:
    modules = list(net.features)
    layers: list[nn.Module] = []
    for module in modules[4:]:
        layers += map(_ConcatLayer, module.values()) if isinstance(module, _DenseBlock) else [module]
    (*blocks, last_block), norm = _split_after(layers, _ConcatLayer)
    blocks = [nn.Sequential(*modules[:4]), *blocks, nn.Sequential(last_block, *norm, nn.ReLU(inplace=True))]
    return blocks, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], net.classifier


def _regnet(net: models.RegNet) -> BlockSplit:
    blocks = [net.stem, *(block for stage in net.trunk_output for block in stage)]
    return blocks, [net.avgpool, nn.Flatten()], net.fc


def _shufflenet(net: models.ShuffleNetV2) -> BlockSplit:
    stem = nn.Sequential(net.conv1, net.maxpool)
    blocks = [stem, *net.stage2, *net.stage3, *net.stage4, net.conv5]
    return blocks, [nn.AdaptiveAvgPool2d(1), nn.Flatten()], net.fc


def _mnasnet(net: models.MNASNet) -> BlockSplit:
    parts = list(net.layers)
    stages = [block for part in parts if isinstance(part, nn.Sequential) for block in part]
    stem = nn.Sequential(*parts[:8])
    last_conv = nn.Sequential(*parts[-3:])
    return [stem, *stages, last_conv], [nn.AdaptiveAvgPool2d(1), nn.Flatten()], net.classifier[-1]


def _maxvit(net: models.MaxVit) -> BlockSplit:
    pool, flatten, norm, linear, activation, last = net.classifier
    blocks = [net.stem, *(layer for block in net.blocks for layer in block.layers)]
    return [*blocks, nn.Sequential(pool, flatten, norm, linear, activation)], [nn.Identity()], last


class _InputTransform(nn.Module):
    """The change of normalisation that GoogLeNet and Inception apply to their input."""

    def __init__(self, net: models.GoogLeNet | models.Inception3) -> None:
        super().__init__()
        self._transform = net._transform_input

    def forward(self, images: Tensor) -> Tensor:
        transformed: Tensor = self._transform(images)
        return transformed


def _googlenet(net: models.GoogLeNet) -> BlockSplit:
    stem = nn.Sequential(_InputTransform(net), net.conv1, net.maxpool1)
    blocks = [stem, net.conv2, nn.Sequential(net.conv3, net.maxpool2), net.inception3a]
    blocks += [nn.Sequential(net.inception3b, net.maxpool3), net.inception4a, net.inception4b, net.inception4c]
    blocks += [net.inception4d, nn.Sequential(net.inception4e, net.maxpool4), net.inception5a, net.inception5b]
    return blocks, [net.avgpool, nn.Flatten()], net.fc


def _inception(net: models.Inception3) -> BlockSplit:
    stem = nn.Sequential(_InputTransform(net), net.Conv2d_1a_3x3)
    blocks = [stem, net.Conv2d_2a_3x3, nn.Sequential(net.Conv2d_2b_3x3, net.maxpool1), net.Conv2d_3b_1x1]
    blocks += [nn.Sequential(net.Conv2d_4a_3x3, net.maxpool2), net.Mixed_5b, net.Mixed_5c, net.Mixed_5d]
    blocks += [net.Mixed_6a, net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e]
    blocks += [net.Mixed_7a, net.Mixed_7b, net.Mixed_7c]
    return blocks, [net.avgpool, nn.Flatten()], net.fc


_FAMILIES: dict[type[nn.Module], Callable[..., BlockSplit]] = {
    models.ResNet: _resnet,
    models.EfficientNet: _efficientnet,
    models.MobileNetV2: _mobilenet_v2,
    models.MobileNetV3: _mobilenet_v3,
    models.ConvNeXt: _convnext,
    models.SwinTransformer: _swin,
    models.VisionTransformer: _vit,
    models.SqueezeNet: _squeezenet,
    models.VGG: _vgg_or_alexnet,
    models.AlexNet: _vgg_or_alexnet,
    models.DenseNet: _densenet,
    models.RegNet: _regnet,
    models.ShuffleNetV2: _shufflenet,
    models.MNASNet: _mnasnet,
    models.MaxVit: _maxvit,
    models.GoogLeNet: _googlenet,
    models.Inception3: _inception,
}
