"""Computes frozen blocks: without autograd, with batch-norm folded into the convolution before it."""

import copy
import hashlib
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from finetune.models.classifier import Classifier


class FrozenPrefix:
    """The first blocks of a classifier as they are now, before any training.

    Frozen blocks stay so (see unfreezing.freeze_blocks); copies of the blocks that will train serve runs that freeze
    more than this one. Blocks are folded when first used. Always in float32: in bf16, a prefix with batch-norm changed
    the gradients after it by a fifth (with random weights), and the prefix is computed once for many runs.

    Args:
        depth: number of blocks; None for all.
        final_cut: number of blocks that never train in this run, and need no copy.

    Attributes:
        hashes: one per block, of its weights and statistics.
    """

    def __init__(self, model: Classifier, depth: int | None = None, final_cut: int = 0) -> None:
        copies = (copy.deepcopy(block) for block in model.blocks[final_cut:depth])
        self._blocks: list[nn.Module] = [*model.blocks[:final_cut], *copies]
        for block in self._blocks:
            block.eval().requires_grad_(False)
        self._pool, self._block_count = model.pool, len(model.blocks)
        self._folded: set[int] = set()
        self.hashes = [_weights_hash(block) for block in self._blocks]

    @torch.no_grad()
    def run(self, hidden: Tensor, start: int, cut: int) -> Tensor:
        """Return the input of block `cut`, given the input of block `start`; after the last block, features (B, D)."""
        with torch.autocast(hidden.device.type, enabled=False):
            for index in range(start, cut):
                hidden = self._block(index, hidden)(hidden)
            return self._pool(hidden) if cut == self._block_count and start < cut else hidden

    def _block(self, index: int, hidden: Tensor) -> nn.Module:
        if index not in self._folded:
            folded = fold(self._blocks[index])
            if _computes_same(folded, self._blocks[index], hidden[:2]):
                self._blocks[index] = folded
            self._folded.add(index)
        return self._blocks[index]


def _weights_hash(block: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in block.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _computes_same(folded: nn.Module, block: nn.Module, hidden: Tensor) -> bool:
    """Whether the folded block computes the same: a trace can miss a branch of the block's code."""
    try:
        output, expected = folded(hidden.clone()), block(hidden.clone())
    except Exception:  # of any kind: it is generated code
        return False
    return bool((output - expected).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1e-30))


def fold(block: nn.Module) -> nn.Module:
    """Return a copy of the block for evaluation, with each batch-norm folded into its convolution.

    Returns the block itself if its code can't be traced, or if it has no batch-norm.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in block.modules()):
        return block
    copied = copy.deepcopy(block).eval().requires_grad_(False)
    try:
        graph = fx.GraphModule(copied, _ConvNormTracer().trace(copied))
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
            continue  # other modules use them unfolded
        norm = modules[node.target]
        _replace(graph, before.target, fuse_conv_bn_eval(modules[before.target], norm))
        if after := _layers_after(norm):
            _replace(graph, node.target, nn.Sequential(*after))
        else:
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.to(memory_format=torch.channels_last)


class _ConvNormTracer(fx.Tracer):
    """Keeps convolutions and batch-norms as modules, also those of classes that other libraries derive."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _layers_after(norm: nn.Module) -> list[nn.Module]:
    """Return the layers that timm's batch-norm applies after the normalisation; none for torch's own."""
    layers = [getattr(norm, name, None) for name in ("drop", "act")]
    return [layer for layer in layers if isinstance(layer, nn.Module) and not isinstance(layer, nn.Identity)]


def _replace(module: nn.Module, path: str, submodule: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, submodule)
