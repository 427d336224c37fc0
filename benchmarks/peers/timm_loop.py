"""The plain loop with timm's network, frozen by timm.utils.freeze, which stops batch-norm statistics too."""

from typing import Any

import torch
from timm import create_model
from timm.utils import freeze as timm_freeze
from timm.utils import unfreeze as timm_unfreeze
from torch import Tensor, nn

from benchmarks import plain
from finetune.config import Config
from finetune.errors import UserError

# torchvision's names -> timm's for the same architectures.
NAMES = {
    "efficientnet_v2_s": "efficientnetv2_s",
    "efficientnet_v2_m": "efficientnetv2_m",
    "efficientnet_b0": "efficientnet_b0",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
}
STOCHASTIC_DEPTH = 0.2  # torchvision's default for its EfficientNets; timm's is 0


class TimmNetwork(nn.Module):
    """A network of timm. images (B, 3, H, W) float32 -> logits (B, classes).

    Attributes:
        names: of the modules that make up each block, from input to head.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        children = [name for name, _ in network.named_children()]
        stages = ["blocks"] if "blocks" in children else [name for name in children if name.startswith("layer")]
        inner = [f"{stage}.{number}" for stage in stages for number in range(len(network.get_submodule(stage)))]
        if "blocks" in children:  # EfficientNet's stages are lists within a list
            inner = [f"{stage}.{number}" for stage in inner for number in range(len(network.get_submodule(stage)))]
        stem = [name for name in ("conv_stem", "conv1", "bn1") if name in children]
        last = [name for name in ("conv_head", "bn2") if name in children]
        self.names = [stem, *([name] for name in inner), *([last] if last else [])]

    @property
    def blocks(self) -> list[nn.Module]:
        """The backbone; looked up each time, as freezing replaces the batch-norms."""
        return [nn.ModuleList([self.network.get_submodule(name) for name in names]) for names in self.names]

    @property
    def head(self) -> nn.Module:
        """The linear layer."""
        head: nn.Module = self.network.get_classifier()
        return head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def build(config: Config, classes: int, image_px: int) -> TimmNetwork:  # noqa: ARG001
    """Return timm's network of this architecture, with random weights.

    Raises:
        UserError: no timm network is listed here for this backbone, or the config has pretrained weights.
    """
    if config.backbone not in NAMES or config.weights != "none":
        raise UserError(f"timm: only {', '.join(NAMES)}, and with weights none, not {config.backbone} {config.weights}")
    depth = STOCHASTIC_DEPTH if config.backbone.startswith("efficientnet") else 0.0
    name = NAMES[config.backbone]
    return TimmNetwork(create_model(name, num_classes=classes, drop_rate=config.dropout, drop_path_rate=depth))


def freeze(network: TimmNetwork, cut: int, optimizer: torch.optim.Optimizer, config: Config) -> None:
    """Freeze the first `cut` blocks and unfreeze the others, both as timm does."""
    for change, blocks in ((timm_freeze, network.names[:cut]), (timm_unfreeze, network.names[cut:])):
        names = [name for block in blocks for name in block]
        if names:  # timm takes an empty list for the whole network
            change(network.network, names)
    # An unfrozen batch-norm is a new module, whose parameters the optimiser lacks.
    old = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in plain.make_groups(network, config):
        new = [parameter for parameter in group["params"] if id(parameter) not in old]
        if new:
            optimizer.add_param_group({**group, "params": new})


def train(config: Config) -> dict[str, Any]:
    """Train `config`; return what `plain.train` returns, where seconds/suffix holds seconds/prefix too."""
    return plain.train(config, build, freeze)
