"""Who is measured: name, how it trains, which package it needs, what to know of it."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from finetune.config import Config

PLAIN = "plain"
OURS = ("ours", "ours-bf16")


@dataclass(frozen=True)
class Contender:
    """One way to train a config.

    Attributes:
        title: as tables name it.
        module: whose `train(config, **options)` does it.
        package: what has to be installed for it, or None.
        own_network: whether its network is not torchvision's, so that weights for that one do not fit.
        note: what is different about its work, a line below the table; or None.
    """

    title: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    package: str | None = None
    own_network: bool = False
    note: str | None = None


CONTENDERS = {
    PLAIN: Contender(
        "plain loop",
        "benchmarks.plain",
        note="frozen batch-norms use the batch's statistics and let their own drift",
    ),
    "timm": Contender(
        "timm, freeze()",
        "benchmarks.peers.timm_loop",
        package="timm",
        own_network=True,
        note="the plain loop with timm's network; freeze() stops frozen batch-norms wholly",
    ),
    "fastai": Contender(
        "fastai",
        "benchmarks.peers.fastai_loop",
        {"train_bn": True},
        "fastai",
        note="frozen batch-norms train (its default), so backward passes go through the frozen part",
    ),
    "fastai-frozen-bn": Contender(
        "fastai, train_bn=False",
        "benchmarks.peers.fastai_loop",
        {"train_bn": False},
        "fastai",
        note="frozen batch-norms' weights stand still, their statistics drift as in the plain loop",
    ),
    "lightning": Contender(
        "Lightning",
        "benchmarks.peers.lightning_loop",
        {"train_bn": True},
        "lightning",
        note="BackboneFinetuning's default trains frozen batch-norms",
    ),
    "lightning-frozen-bn": Contender(
        "Lightning, BN frozen",
        "benchmarks.peers.lightning_loop",
        {"train_bn": False},
        "lightning",
        note="train_bn=False as one would expect it; BackboneFinetuning itself freezes no batch-norm with it",
    ),
    OURS[0]: Contender(
        "finetune, fp32",
        "benchmarks.ours",
        {"precision": "fp32"},
        note="frozen blocks are in eval mode wholly; val is fed from the cache too",
    ),
    OURS[1]: Contender(
        "finetune, bf16",
        "benchmarks.ours",
        {"precision": "bf16"},
        note="other numerics than all rows above: what trains is computed in bfloat16, the frozen part in float32",
    ),
}


def is_installed(name: str) -> bool:
    """Whether the contender's package can be imported here."""
    package = CONTENDERS[name].package
    return package is None or importlib.util.find_spec(package) is not None


def trainer(name: str) -> Callable[..., dict[str, Any]]:
    """Return the contender's train(config, ...), its options filled in."""
    contender = CONTENDERS[name]
    function = importlib.import_module(contender.module).train

    def train(config: Config, **more: Any) -> dict[str, Any]:
        return dict(function(config, **contender.options, **more))

    return train
