"""Frozen blocks as they are computed: without autograd, batch-norm folded into the convolution before it."""

import copy
import hashlib
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from finetune.models.classifier import Classifier


class FrozenPrefix:
    """A classifier's first blocks as they are now, before anything has trained.

    What is frozen stays like them (see unfreezing.freeze_blocks), and copies of what will train serve the runs that
    freeze more than this one. Blocks are folded when first used. Always in float32: in bf16, a prefix with batch-norm
    came out a fifth wrong in the gradients that follow it (with random weights), and it is computed once for many runs.

    Args:
        deepest: how many blocks; None for all.
        forever: how many of them never train in this run, and need no copy.

    Attributes:
        hashes: one for each block, of its weights and statistics.
    """

    def __init__(self, model: Classifier, deepest: int | None = None, forever: int = 0) -> None:
        own, others = model.blocks[:forever], model.blocks[forever:deepest]
        self._blocks: list[nn.Module] = [*own, *(copy.deepcopy(block) for block in others)]
        for block in self._blocks:
            block.eval().requires_grad_(False)
        self._pool, self._count = model.pool, len(model.blocks)
        self._folded: set[int] = set()
        self.hashes = [_hash_of(block) for block in self._blocks]

    @torch.no_grad()
    def run(self, hidden: Tensor, start: int, cut: int) -> Tensor:
        """Return what enters block `cut`, given what enters block `start`; after the last block, features (B, D)."""
        with torch.autocast(hidden.device.type, enabled=False):
            for index in range(start, cut):
                hidden = self._block(index, hidden)(hidden)
            return self._pool(hidden) if cut == self._count and start < cut else hidden

    def _block(self, index: int, hidden: Tensor) -> nn.Module:
        if index not in self._folded:
            folded = fold(self._blocks[index])
            if _same(folded, self._blocks[index], hidden[:2]):
                self._blocks[index] = folded
            self._folded.add(index)
        return self._blocks[index]


def _hash_of(block: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in block.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _same(folded: nn.Module, block: nn.Module, hidden: Tensor) -> bool:
    """Whether both give the same: a trace can have missed a branch of the block's code."""
    try:
        found, expected = folded(hidden.clone()), block(hidden.clone())
    except Exception:  # of any kind: it is generated code
        return False
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1e-30))


def fold(block: nn.Module) -> nn.Module:
    """Return the block for evaluation, with each batch-norm folded into its convolution; the block stays as it is.

    Where the block's code can't be traced, or has no batch-norm, the block itself is returned.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in block.modules()):
        return block
    try:
        graph = fx.symbolic_trace(copy.deepcopy(block).eval().requires_grad_(False))
    except Exception:  # fx raises many kinds for code that depends on values
        return block
    modules = dict(graph.named_modules())
    calls = Counter(node.target for node in graph.graph.nodes)
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or not isinstance(modules[before.target], nn.Conv2d):
            continue
        if len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue  # somebody else needs them as they are
        parent, _, name = before.target.rpartition(".")
        fused = fuse_conv_bn_eval(modules[before.target], modules[node.target])
        setattr(graph.get_submodule(parent), name, fused)
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.to(memory_format=torch.channels_last)
