"""A shallow torch.fx trace on device meta: the code between a network's modules, as a graph with known sizes.

Only the code of some modules is traced; all others stay modules, with train and eval mode as ever. Each value is
computed for batches of two sizes. What is equal for both is a constant, on which code may branch; what differs is a
node of the graph.
"""

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

BATCH_SIZES = (2, 3)

Pair = tuple[Any, Any]  # a value for either batch size


class TraceError(Exception):
    """The network's code can't be traced."""


@dataclass
class Trace:
    """A network as a graph.

    Attributes:
        graph: from `images` (B, 3, H, W) to the network's output.
        values: each node's value for either batch size, tensors on device meta.
        opened: names of the modules whose code is part of the graph; all others are nodes.
    """

    graph: fx.Graph
    values: dict[fx.Node, Pair]
    opened: set[str]


def trace(network: nn.Module, image_px: int, opened: Iterable[str]) -> Trace:
    """Trace a network on device meta; an opened module whose code can't be traced is closed.

    Raises:
        TraceError: the network's own code can't be traced, or uses tensors that are no buffers.
    """
    opened = {"", *opened}
    while True:
        root = copy.deepcopy(network)  # some modules keep what they have computed, which is a proxy here
        tracer = _ShallowTracer(opened, image_px)
        try:
            with _Creations(tracer):
                graph = tracer.trace(root)
            break
        except Exception as error:  # of any kind: code that can't be traced
            if tracer.failed in (None, ""):
                raise TraceError(f"{type(network).__name__}: {error}") from error
            opened.discard(tracer.failed)
    _remove_unused(graph)
    if any(node.op == "get_attr" and node.target.startswith("_tensor_constant") for node in graph.nodes):
        raise TraceError(f"{type(network).__name__} uses tensors that are no buffers")
    return Trace(graph, tracer.values, opened)


def meta_copy(network: nn.Module) -> nn.Module:
    """Return a copy on device meta; the network's own tensors are not copied."""
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    tensors += [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copy.deepcopy(network, {id(tensor): _on_meta(tensor) for tensor in tensors})


def _on_meta(tensor: Tensor) -> Tensor:
    meta = tensor.detach().to("meta")
    return nn.Parameter(meta, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta


def dim_of(tensor: Tensor, index: int) -> int:
    """Return one size of a tensor; as a function, it is a node that graphs can be searched for."""
    return tensor.shape[index]


def find_attribute(module: nn.Module, path: str) -> Any:
    """Return a parameter, buffer, submodule or other attribute by its dotted path."""
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value


class _Sized(fx.Proxy):
    """A proxy that knows its values: code may ask for sizes, iterate and branch as with a tensor."""

    tracer: "_ShallowTracer"

    @property
    def pair(self) -> Pair:
        return self.tracer.values[self.node]

    def _constant(self) -> Any:
        first, second = self.pair
        if isinstance(first, Tensor) or first != second:
            raise TraceError("the code branches on a value that depends on the images")
        return first

    def _tensors(self) -> Pair:
        if not isinstance(self.pair[0], Tensor):
            raise AttributeError
        return self.pair

    def _dims(self) -> tuple[Any, ...]:
        first, second = self._tensors()
        return tuple(
            a if a == b else self.tracer.create_proxy("call_function", dim_of, (self, index), {})
            for index, (a, b) in enumerate(zip(first.shape, second.shape, strict=True))
        )

    def __getattr__(self, name: str) -> Any:
        value = self.pair[0]
        if isinstance(value, Tensor):
            if name == "shape":
                return self._dims()
            if name in _CONSTANT_ATTRIBUTES:
                return getattr(value, name)
        elif not hasattr(value, name):
            raise AttributeError(name)
        return fx.proxy.Attribute(self, name)

    def size(self, dim: int | None = None) -> Any:
        return self._dims() if dim is None else self._dims()[dim]

    def dim(self) -> int:
        return int(self._tensors()[0].dim())

    def numel(self) -> Any:
        total: Any = 1
        for size in self._dims():
            total = total * size
        return total

    def __len__(self) -> int:
        first, second = map(len, self.pair)
        if first != second:
            raise TraceError("the code takes the number of images in a batch as a plain number")
        return first

    def __iter__(self) -> Iterator[Any]:
        return (operator.getitem(self, index) for index in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._constant())

    def __int__(self) -> int:
        return int(self._constant())

    def __float__(self) -> float:
        return float(self._constant())

    def __index__(self) -> int:
        return operator.index(self._constant())


_CONSTANT_ATTRIBUTES = frozenset(
    [
        "dtype",
        "device",
        "ndim",
        "layout",
        "requires_grad",
        "is_floating_point",
        "is_cuda",
        "is_meta",
        "is_sparse",
        "is_nested",
    ]
)


class _Creations(TorchFunctionMode):
    """Adds nodes for tensors that the traced code creates from nothing (arange, zeros)."""

    def __init__(self, tracer: "_ShallowTracer") -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._tracer.evaluating and func is functional.batch_norm:
            return torch.empty_like(args[0])  # torch takes 10 ms to find this out
        result = func(*args, **kwargs)
        created = isinstance(result, Tensor) and not _contains((fx.Proxy, Tensor), (args, kwargs))
        if created and not self._tracer.evaluating:
            return self._tracer.create_proxy("call_function", func, args, kwargs)
        return result


class _ShallowTracer(fx.Tracer):
    """Traces the opened modules' code.

    Attributes:
        values: of each node, for either batch size.
        evaluating: whether a node's values are being computed, which is not traced.
        failed: the innermost opened module whose code raised.
    """

    proxy_buffer_attributes = True

    def __init__(self, opened: set[str], image_px: int) -> None:
        super().__init__()
        self._opened, self._image_px = opened, image_px
        self.values: dict[fx.Node, Pair] = {}
        self.evaluating = False
        self.failed: str | None = None

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        self._names: dict[int, str] = {id(module): name for name, module in root.named_modules()}
        return super().trace(root, concrete_args)

    def create_args_for_root(self, root_fn: Any, *_: Any) -> Any:
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Sized(node, self)

    def path_of_module(self, mod: nn.Module) -> str:
        return self._names[id(mod)]

    def is_leaf_module(self, _: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._opened

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.evaluating else super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.evaluating or not _contains(fx.Proxy, (args, kwargs)):
            return forward(*args, **kwargs)
        name = self.path_of_module(m)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None and name in self._opened:
                self.failed = name
            raise

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **more: Any) -> Any:
        proxy = super().create_proxy(kind, target, args, kwargs, *rest, **more)
        if kind == "output":
            return proxy
        pair = self._evaluate(proxy.node)
        self.values[proxy.node] = pair
        return pair[0] if kind != "placeholder" and _is_constant(*pair) else proxy

    def _evaluate(self, node: fx.Node) -> Pair:
        self.evaluating = True
        try:
            with torch.no_grad():
                return self._value(node, 0), self._value(node, 1)
        finally:
            self.evaluating = False

    def _value(self, node: fx.Node, side: int) -> Any:
        if node.op == "placeholder":
            return torch.zeros(BATCH_SIZES[side], 3, self._image_px, self._image_px, device="meta")
        if node.op == "get_attr":
            return find_attribute(self.root, str(node.target))
        args = _resolved(node.args, lambda other: self._known(other)[side])
        kwargs = _resolved(node.kwargs, lambda other: self._known(other)[side])
        if node.op == "call_module":
            return self.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _known(self, node: fx.Node) -> Pair:
        if node not in self.values:  # a tensor that fx itself has added to the graph
            self.values[node] = (find_attribute(self.root, str(node.target)),) * 2
        return self.values[node]


def _is_constant(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if first is None or isinstance(first, int | float | bool | str | torch.dtype | torch.device):
        return bool(first == second)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_is_constant, first, second))
    return False


def _resolved(value: Any, value_of: Callable[[fx.Node], Any]) -> Any:
    """Return a node's arguments with nodes replaced by their values, and fx's immutable lists by plain ones."""
    if isinstance(value, fx.Node):
        return value_of(value)
    if isinstance(value, tuple):
        items = [_resolved(item, value_of) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_resolved(item, value_of) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item, value_of) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_resolved(item, value_of) for item in (value.start, value.stop, value.step)))
    return value


def _contains(kinds: type | tuple[type, ...], value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_contains(kinds, item) for item in value)
    if isinstance(value, dict):
        return any(_contains(kinds, item) for item in value.values())
    return isinstance(value, kinds)


def _remove_unused(graph: fx.Graph) -> None:
    """Erase nodes without effect, among them dropout at rate 0, which differs between train and eval mode."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target is functional.dropout:
            rate = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            if rate == 0:
                node.replace_all_uses_with(node.args[0])
    for node in reversed(list(graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
