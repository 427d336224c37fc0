"""Cuts a network of any architecture into ordered blocks, without knowing its code: by a graph of its data flow.

A cut is a tensor with one row per image that alone carries everything the rest of the network needs of the images.
What depends on sizes, parameters or buffers alone (position tables) is computed again in each block that needs it.
A network that can't be cut, or whose blocks would not compute the same, is one block.
"""

import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from finetune.models.graph_trace import BATCH_SIZES, Trace, TraceError, dim_of, find_attribute, meta_copy, trace

logger = logging.getLogger(__name__)

FINE_GROUPS = 9  # with fewer layer groups, a network's groups are stages rather than layers


class Blocks(NamedTuple):
    """A network as ordered blocks, whose composition maps images (B, 3, H, W) to features (B, D).

    Attributes:
        blocks: they share the network's modules and parameters.
        features: D.
    """

    blocks: list[nn.Module]
    features: int


@dataclass
class _Segment:
    """The part of a graph between two cuts.

    Attributes:
        start: the node whose value is the input; end: that of the output.
        nodes: what is computed.
        parameters: names of the parameters that the nodes use.
    """

    start: fx.Node
    nodes: set[fx.Node]
    end: fx.Node
    parameters: set[str]


def cut_into_blocks(network: nn.Module, image_px: int, groups: Mapping[str, int] | None = None) -> Blocks:
    """Cut a network that returns features (B, D) for images (B, 3, image_px, image_px).

    A network on device meta is cut without the comparison of its outputs, which needs weights.

    Args:
        groups: the layer group of each parameter, counted from the input; None if unknown.

    Raises:
        ValueError: the network does not return (B, D).
    """
    expected = _outputs(network, [network], image_px)
    if not isinstance(expected, Tensor) or expected.ndim != 2 or len(expected) != BATCH_SIZES[1]:
        shape = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        raise ValueError(
            f"{type(network).__name__} returns no features (B, D) for {BATCH_SIZES[1]} images, but {shape}"
        )
    try:
        blocks = _cut(network, image_px, groups)
        if not expected.is_meta and not _are_close(_outputs(network, blocks, image_px), expected):
            raise TraceError("its blocks compute something else")
    except Exception as error:  # of any kind: generated code of an architecture that nobody may have tried
        logger.warning(f"{type(network).__name__} is one block, as it can't be cut: {error}")
        blocks = [network]
    for block in blocks:
        block.register_load_state_dict_post_hook(_forget_computed)  # type: ignore[no-untyped-call]
    return Blocks(blocks, expected.shape[1])


def check_other_size(network: nn.Module, image_px: int, other_px: int, groups: Mapping[str, int] | None = None) -> None:
    """Raise ValueError if the network's blocks for images of `image_px` are not those for images of `other_px`.

    Blocks keep the sizes that the code between modules computes with, such as a grid that a map is resized to.
    """
    outline = meta_copy(network).eval()
    try:
        traced, segments = _plan(outline, image_px, groups)
    except TraceError:
        return  # one block: the network itself
    if len(segments) > 1 and not _has_code(outline, other_px, traced):
        raise ValueError(f"its blocks are made for images of {image_px} pixels alone")


def _has_code(outline: nn.Module, image_px: int, traced: Trace) -> bool:
    """Whether the code between the network's modules, for this size and in this mode, is the traced one."""
    try:
        return str(trace(outline, image_px, traced.opened).graph) == str(traced.graph)
    except TraceError:
        return False


@torch.no_grad()
def _outputs(network: nn.Module, blocks: Sequence[nn.Module], image_px: int) -> Any:
    """Return what the network's blocks compute in eval mode for random images, and leave them in the network's mode.

    The images are as many as the second batch size: a batch size that is wrongly a constant is the first.
    """
    was_training, device = network.training, next(network.parameters()).device
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH_SIZES[1], 3, image_px, image_px)
    hidden: Any = torch.randn(shape, generator=generator, device="cpu").to(device)
    for block in blocks:
        hidden = block.eval()(hidden)
    for block in blocks:
        _forget_computed(block.train(was_training))
    return hidden


def _are_close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-4 * expected.abs().max())


def _cut(network: nn.Module, image_px: int, groups: Mapping[str, int] | None) -> list[nn.Module]:
    outline = meta_copy(network).eval()
    traced, segments = _plan(outline, image_px, groups)
    if len(segments) == 1:
        return [network]
    _check_plan(outline, image_px, traced, segments)
    return [_bind(traced, segment, network, index) for index, segment in enumerate(segments)]


def _forget_computed(module: nn.Module, _: object = None) -> None:
    """Make modules forget what they have computed from their parameters in eval mode: they do so in train mode."""
    was_training = module.training
    module.train()
    module.train(was_training)


def _plan(outline: nn.Module, image_px: int, groups: Mapping[str, int] | None) -> tuple[Trace, list[_Segment]]:
    traced = trace(outline, image_px, _modules_to_open(outline, groups))
    segments = _segments(traced, outline, groups)
    # A module that lies in one block stays a module, with its own code for train mode.
    block_of = {name: index for index, segment in enumerate(segments) for name in segment.parameters}
    names = _parameter_names(outline)
    opened = {""} | {
        name
        for name in traced.opened
        if len({block_of.get(names[id(value)]) for value in outline.get_submodule(name).parameters()}) > 1
    }
    if opened == traced.opened:
        return traced, segments
    traced = trace(outline, image_px, opened)
    return traced, _segments(traced, outline, groups)


def _parameter_names(network: nn.Module) -> dict[int, str]:
    return {id(value): name for name, value in network.named_parameters()}


def _modules_to_open(network: nn.Module, groups: Mapping[str, int] | None) -> set[str]:
    """Return the names of the modules that hold more than one block."""
    names = _parameter_names(network)
    coarse = groups is None or len(set(groups.values())) < FINE_GROUPS
    opened = set()
    for name, module in network.named_modules():
        if _is_torch_layer(module):
            continue
        spans = {groups[names[id(value)]] for value in module.parameters()} if groups else set()
        if len(spans) > 1 or (coarse and any(map(_is_stage, module.modules()))):
            opened.add(name)
    return opened


def _is_torch_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules") and not _is_container(module)


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def _is_stage(module: nn.Module) -> bool:
    """Whether a module is a container of two or more composite modules with parameters."""
    composite = [
        child
        for child in module.children()
        if not type(child).__module__.startswith("torch.nn.modules") and any(True for _ in child.parameters())
    ]
    return _is_container(module) and len(composite) > 1


def _segments(traced: Trace, network: nn.Module, groups: Mapping[str, int] | None) -> list[_Segment]:
    """Return the graph's blocks: each has a matrix of weights, and no parameter is in two."""
    of_images = _image_nodes(traced.graph)
    cuts = _find_cuts(traced, of_images)
    names = _parameter_names(network)
    start, *nodes, output = traced.graph.nodes
    segments: list[_Segment] = []
    current: list[fx.Node] = []
    for node in nodes:
        if node not in of_images:
            continue
        current.append(node)
        if node in cuts or node is output.args[0]:
            needed = _needed(current, of_images, start)
            segments.append(_Segment(start, needed, node, _parameters_of(needed, network, names)))
            start, current = node, []
    if current:
        raise TraceError("its output is not the last value that depends on the images")
    return _merge_small(_merge_shared(segments), network, groups)


def _image_nodes(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes whose values depend on the images, not only on their sizes."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or (node.target is not dim_of and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


def _find_cuts(traced: Trace, of_images: set[fx.Node]) -> set[fx.Node]:
    """Return the nodes whose value alone carries everything later nodes need of the images."""
    order = {node: index for index, node in enumerate(traced.graph.nodes)}
    last_use = {node: max((order[user] for user in node.users if user in of_images), default=-1) for node in of_images}
    cuts, reach = set(), -1
    for node in traced.graph.nodes:
        if node not in of_images or node.op == "output":
            continue
        if reach <= order[node] and node.op != "placeholder" and _has_row_per_image(*traced.values[node]):
            cuts.add(node)
        reach = max(reach, last_use[node])
    return cuts


def _has_row_per_image(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or first.ndim < 2 or not first.is_floating_point():
        return False
    return (first.shape[0], second.shape[0]) == BATCH_SIZES and first.shape[1:] == second.shape[1:]


def _needed(segment: list[fx.Node], of_images: set[fx.Node], start: fx.Node) -> set[fx.Node]:
    """Return the segment's nodes and those that do not depend on the images' values and are needed for them."""
    own, needed, queue = set(segment), set[fx.Node](), list(segment)
    while queue:
        node = queue.pop()
        if node in needed:
            continue
        needed.add(node)
        if node.target is dim_of and node.args[0] not in own:
            continue  # computed from the batch size of the segment's input
        queue += [
            other
            for other in node.all_input_nodes
            if other is not start and other.op != "placeholder" and (other in own or other not in of_images)
        ]
    return needed


def _parameters_of(nodes: Iterable[fx.Node], network: nn.Module, names: Mapping[int, str]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if node.op == "call_module":
            found |= {names[id(value)] for value in network.get_submodule(str(node.target)).parameters()}
        elif node.op == "get_attr" and isinstance(value := find_attribute(network, str(node.target)), nn.Parameter):
            found.add(names[id(value)])
    return found


def _join(segments: list[_Segment]) -> _Segment:
    nodes = set[fx.Node]().union(*(segment.nodes for segment in segments))
    parameters = set[str]().union(*(segment.parameters for segment in segments))
    return _Segment(segments[0].start, nodes, segments[-1].end, parameters)


def _merge_shared(segments: list[_Segment]) -> list[_Segment]:
    """Remove the cuts between two uses of one parameter."""
    last_use = {name: index for index, segment in enumerate(segments) for name in segment.parameters}
    merged: list[_Segment] = []
    group: list[_Segment] = []
    reach = 0
    for index, segment in enumerate(segments):
        group.append(segment)
        reach = max([reach, *(last_use[name] for name in segment.parameters)])
        if reach <= index:
            merged.append(_join(group))
            group = []
    return merged


def _merge_small(segments: list[_Segment], network: nn.Module, groups: Mapping[str, int] | None) -> list[_Segment]:
    """Join segments without a matrix of weights (norm, pooling) with their neighbours, and those of the stem."""
    matrices = {name for name, value in network.named_parameters() if value.ndim > 1}

    def belongs_together(before: _Segment, segment: _Segment) -> bool:
        if matrices.isdisjoint(segment.parameters) or matrices.isdisjoint(before.parameters):
            return True
        return groups is not None and all(groups[name] == 0 for name in [*before.parameters, *segment.parameters])

    merged: list[_Segment] = []
    for segment in segments:
        if merged and belongs_together(merged[-1], segment):
            merged[-1] = _join([merged[-1], segment])
        else:
            merged.append(segment)
    return merged


def _bind(traced: Trace, segment: _Segment, network: nn.Module, index: int) -> fx.GraphModule:
    """Return the segment as a module that shares the network's modules, parameters and buffers."""
    graph = fx.Graph()
    hidden = graph.placeholder("hidden")
    copies = {segment.start: hidden}
    batch = graph.call_function(dim_of, (hidden, 0))
    device = graph.call_function(getattr, (hidden, "device"))

    def on_device(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for node in traced.graph.nodes:
        if node not in segment.nodes or node is segment.start:
            continue
        if node.target is dim_of and node.args[0] not in copies:
            copies[node] = graph.call_function(operator.mul, (batch, _rows_per_image(*traced.values[node])))
            continue
        copied = graph.node_copy(node, copies.__getitem__)
        copied.args = tuple(map(on_device, copied.args))
        copied.kwargs = {key: on_device(value) for key, value in copied.kwargs.items()}
        copies[node] = copied
    graph.output(copies[segment.end])
    graph.eliminate_dead_code(lambda node: node not in (batch, device))
    graph.lint()
    return fx.GraphModule(network, graph, class_name=f"Block{index}")


def _rows_per_image(first: int, second: int) -> int:
    times, rest = divmod(first, BATCH_SIZES[0])
    if rest or times * BATCH_SIZES[1] != second:
        raise TraceError(f"a size is no multiple of the batch size: {first} for {BATCH_SIZES[0]} images")
    return times


def _check_plan(outline: nn.Module, image_px: int, traced: Trace, segments: list[_Segment]) -> None:
    """Raise TraceError if two blocks share a parameter, or if the code between modules differs in train mode."""
    names = [name for segment in segments for name in segment.parameters]
    if len(names) != len(set(names)):
        raise TraceError("a parameter is in two blocks")
    if not _has_code(outline.train(), image_px, traced):
        raise TraceError("its code between blocks differs between train and eval mode")
