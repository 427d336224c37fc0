"""The contenders: how each trains, the package it needs, and how its work differs."""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

PLAIN = "plain"
OURS = ("ours", "ours-bf16")


@dataclass(frozen=True)
class Contender:
    """One way to train a config."""

    title: str
    module: str  # has the function `train(config, **options)`
    options: dict[str, Any]
    note: str  # how its work differs from the others', a line below the table
    package: str | None = None  # the package it needs


PEERS = "benchmarks.peers"
CONTENDERS = {
    PLAIN: Contender(
        "plain loop", "benchmarks.plain", {},
        "frozen batch-norms use the statistics of the batch, and their running statistics drift",
    ),
    "timm": Contender(
        "timm, freeze()", f"{PEERS}.timm_loop", {},
        "the plain loop with timm's network; freeze() stops frozen batch-norms entirely", "timm",
    ),
    "fastai": Contender(
        "fastai", f"{PEERS}.fastai_loop", {"train_bn": True},
        "frozen batch-norms train (its default), so the backward pass goes through the frozen blocks", "fastai",
    ),
    "fastai-frozen-bn": Contender(
        "fastai, train_bn=False", f"{PEERS}.fastai_loop", {"train_bn": False},
        "weights of frozen batch-norms stay, their statistics drift as in the plain loop", "fastai",
    ),
    "lightning": Contender(
        "Lightning", f"{PEERS}.lightning_loop", {"train_bn": True},
        "BackboneFinetuning trains frozen batch-norms by default", "lightning",
    ),
    "lightning-frozen-bn": Contender(
        "Lightning, BN frozen", f"{PEERS}.lightning_loop", {"train_bn": False},
        "train_bn=False as one would expect it; BackboneFinetuning itself freezes no batch-norm with it", "lightning",
    ),
    OURS[0]: Contender(
        "finetune, fp32", "benchmarks.ours", {"precision": "fp32"},
        "frozen blocks are in eval mode; val uses the cache too",
    ),
    OURS[1]: Contender(
        "finetune, bf16", "benchmarks.ours", {"precision": "bf16"},
        "other numerics than all rows above: trainable blocks compute in bfloat16, frozen ones in float32",
    ),
}  # fmt: skip


def is_installed(name: str) -> bool:
    """Whether the contender's package can be imported here."""
    package = CONTENDERS[name].package
    return package is None or importlib.util.find_spec(package) is not None


def trainer(name: str) -> Callable[..., dict[str, Any]]:
    """Return the contender's train(config, ...), with its options."""
    contender = CONTENDERS[name]
    return partial(importlib.import_module(contender.module).train, **contender.options)
