"""Traces one route of a backbone into a plan."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone, GatePoint
from ssl_dc.compiled.plan import (
    Add,
    Call,
    Conv,
    Decide,
    Dial,
    Linear,
    Mask,
    MaxPool,
    Mean,
    Norm,
    Plan,
    Pointwise,
    Products,
    Relu,
    Step,
    Subsample,
)
from ssl_dc.errors import RunError
from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite
from ssl_dc.norms.base import RouteNorm
from ssl_dc.routes import Route

IMAGES = "images"

_POINTWISE_MODULES = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.Dropout)
_POINTWISE_FUNCTIONS = (F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, torch.sigmoid, torch.tanh)
_POINTWISE_METHODS = {"sigmoid", "tanh"}
"""What maps each number by itself, and takes no other value."""
_MOVING_METHODS = {"reshape", "view", "permute", "transpose", "unbind", "contiguous", "chunk", "flatten"}
_MOVING_FUNCTIONS = (operator.getitem, torch.permute, torch.transpose, torch.unbind, torch.chunk, torch.flatten)
"""What arranges the elements of its first argument anew."""


def capture(backbone: Backbone, route: Route) -> Plan:
    """Trace one route of a backbone in evaluation mode into a plan with one step for each operation.

    A copy of the backbone is traced, so neither the backbone nor any other module of the process notices. Other threads
    may run networks, or trace some, meanwhile. The weights of ``Conv`` steps are shared with the backbone; all else in the
    plan belongs to the copy.

    Raises:
        ValueError: If the route has one budget for each image: a plan has the same for all.
        RunError: If the forward of the backbone cannot be traced, for example because it branches on computed values.
    """
    if isinstance(route.budget, tuple):
        raise ValueError(f"a compiled route has one budget for all images, not {route}")
    network = _OneRoute(_copy_sharing_convolutions(backbone).eval(), route)
    try:
        graph = _Tracer(network).record()
    except Exception as error:  # a stranger's forward may raise anything
        raise RunError(
            f"{type(backbone).__name__}'s forward cannot be traced, which compiling it needs:"
            f" {type(error).__name__}: {error}"
        ) from error
    return _Translation(network, route).plan(graph)


def _copy_sharing_convolutions(backbone: Backbone) -> Backbone:
    """A deep copy that shares the weights of the convolutions that become steps: they are most of the memory."""
    in_gates = {module for point in backbone.gate_points() for module in point.modules()}
    weights = (conv.weight for conv in backbone.modules() if _is_plain(conv) and conv not in in_gates)
    return copy.deepcopy(backbone, {id(weight): weight for weight in weights})


class _OneRoute(nn.Module):
    """A backbone on one route: images to features."""

    def __init__(self, backbone: Backbone, route: Route) -> None:
        super().__init__()
        self.backbone = backbone
        self.route = route

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(images, self.route)[0])


class _Tracer(fx.Tracer):
    """Records the calls of a network in a graph; a gate site, a norm or the products of attention are one call.

    ``fx.Tracer.trace`` replaces ``nn.Module.__call__`` and ``__getattr__`` for the whole process while it runs, which
    breaks the networks of other threads. Here only the forwards of the given network are replaced.

    Args:
        network: Must belong to the caller alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.root = network
        self.graph = fx.Graph()
        self.tensor_attrs = {}

    @torch.no_grad()
    def record(self) -> fx.Graph:
        """The graph of the network."""
        with self._recorded_leaves():
            images = self.create_proxy("placeholder", IMAGES, (), {})
            self.create_node("output", "output", (self.create_arg(self.root(images)),), {})
        return self.graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if type(m) is nn.Module or isinstance(
            m, (nn.ModuleList, nn.ModuleDict)
        ):  # these hold modules, and are never called
            return False
        return isinstance(m, (GatePoint, RouteNorm, AttentionProducts)) or super().is_leaf_module(m, module_qualified_name)

    def create_arg(self, a: Any) -> Any:
        """What stands for a value in the graph; a route stands for itself, else it would be an operation that makes it."""
        return a if isinstance(a, Route) else super().create_arg(a)

    @contextmanager
    def _recorded_leaves(self) -> Iterator[None]:
        """While this lasts, a leaf module adds a node to the graph instead of computing."""
        forwards: dict[nn.Module, Callable[..., Any]] = {
            **{module: self._recording(name) for module, name in self._leaves(self.root, "")},
            **{
                module: _Inlined(module, self, name).run
                for name, module in self.root.named_modules()
                if isinstance(module, fx.GraphModule)
            },
        }
        own_forwards = {module: module.__dict__["forward"] for module in forwards if "forward" in module.__dict__}
        for module, forward in forwards.items():
            module.forward = forward
        try:
            yield
        finally:
            for module in forwards:
                del module.forward
            for module, forward in own_forwards.items():
                module.forward = forward

    def _leaves(self, module: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
        if name and self.is_leaf_module(module, name):
            yield module, name
            return
        for child_name, child in module.named_children():
            yield from self._leaves(child, f"{name}.{child_name}" if name else child_name)

    def _recording(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.create_proxy("call_module", name, args, kwargs)


class _Inlined(fx.Interpreter):
    """Records a part of a network that is itself a graph of ``torch.fx``, with its own tensors as nodes.

    Args:
        graph: The part.
        tracer: What records.
        name: The name of the part in the network.
    """

    def __init__(self, graph: fx.GraphModule, tracer: _Tracer, name: str) -> None:
        super().__init__(graph)
        self._tracer, self._prefix = tracer, name

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:  # noqa: ARG002
        return self._tracer.create_proxy("get_attr", f"{self._prefix}.{target}", (), {})


@dataclass(frozen=True)
class _Operand:
    """Stands for the value with this index among the arguments of a call."""

    index: int


@dataclass(frozen=True)
class _Bound:
    """A function with its constant arguments; called with the values of its operands.

    Attributes:
        function: What is called.
        args: Positional arguments, with an ``_Operand`` in place of each value.
        kwargs: Likewise by name.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, *values: Any) -> Any:
        args, kwargs = _with_leaves(
            (self.args, self.kwargs), lambda leaf: values[leaf.index] if isinstance(leaf, _Operand) else leaf
        )
        return self.function(*args, **kwargs)


@dataclass(frozen=True)
class _Method:
    """Calls a method of its first argument."""

    name: str

    def __call__(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(value, self.name)(*args, **kwargs)


@dataclass(frozen=True)
class _Constant:
    """Returns a value that does not depend on the images."""

    value: Any

    def __call__(self) -> Any:
        return self.value


class _Translation:
    """Translates each node of a graph into a step, or into another name for a value."""

    def __init__(self, network: nn.Module, route: Route) -> None:
        self.network = network
        self.modules = dict(network.named_modules())
        self.route = route
        self.dial = Dial(cast("float | None", route.budget))
        self.steps: list[Step] = []
        self.values: dict[fx.Node, str] = {}

    def plan(self, graph: fx.Graph) -> Plan:
        output = ""
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node] = IMAGES
            elif node.op == "output":
                output = self.values[cast(fx.Node, node.args[0])]
            else:
                self.values[node] = self._translate(node)
        return Plan(tuple(self.steps), output, IMAGES)

    def _translate(self, node: fx.Node) -> str:
        """Add the step of a node; the name of the node's value."""
        if node.op == "call_module":
            module = self.modules[cast(str, node.target)]
            if isinstance(module, nn.Identity):
                return self._value(node.args[0])
            if isinstance(module, GatePoint):
                return self._gate(node, module)
            return self._add(self._of_module(node, module))
        if node.op == "call_function":
            return self._add(self._of_function(node))
        if node.op == "call_method":
            return self._add(self._of_method(node))
        constant = operator.attrgetter(cast(str, node.target))(self.network)
        return self._add(Call(output=node.name, function=_Constant(constant), arguments=()))

    def _gate(self, node: fx.Node, point: GatePoint) -> str:
        activation = self._value(node.args[0])
        if not self.route.gated or point.gate is None:
            return activation
        if not any(isinstance(step, Decide) and step.site == point.site for step in self.steps):
            self._decide(point.site, point.gate, self._value(node.args[1]))
        return self._add(Mask(output=node.name, input=activation, site=point.site))

    def _decide(self, site: GateSite, gate: Gate, decided_on: str) -> None:
        """Add the decision of a gate, as early as it can be made."""
        decision = Decide(output=site.name, input=decided_on, site=site, gate=gate, dial=self.dial)
        self.steps.insert(self._after(decided_on), decision)

    def _after(self, value: str) -> int:
        """The first index after the step that computes a value and the decisions that follow it."""
        makers = [index for index, step in enumerate(self.steps) if step.output == value]
        index = makers[-1] + 1 if makers else 0
        while index < len(self.steps) and isinstance(self.steps[index], Decide):
            index += 1
        return index

    def _of_module(self, node: fx.Node, module: nn.Module) -> Step:
        if _is_plain(module):
            bias = torch.zeros(module.out_channels) if module.bias is None else module.bias.detach()
            return Conv(
                output=node.name,
                input=self._value(node.args[0]),
                layer=cast(str, node.target).partition(".")[2],
                weight=module.weight.detach(),
                bias=bias,
                stride=module.stride[0],
                padding=cast("tuple[int, int]", module.padding),
                groups=module.groups,
            )
        if type(module) is nn.Linear:
            return Linear(
                output=node.name,
                input=self._value(node.args[0]),
                layer=cast(str, node.target).partition(".")[2],
                weight=module.weight.detach(),
                bias=torch.zeros(module.out_features) if module.bias is None else module.bias.detach(),
            )
        if isinstance(module, nn.ReLU):
            return Relu(output=node.name, input=self._value(node.args[0]))
        if isinstance(module, _POINTWISE_MODULES):
            return Pointwise(output=node.name, input=self._value(node.args[0]), function=module)
        if isinstance(module, nn.MaxPool2d) and _is_square(module):
            return MaxPool(
                output=node.name,
                input=self._value(node.args[0]),
                kernel=_side(module.kernel_size),
                stride=_side(module.stride),
                padding=_side(module.padding),
            )
        if isinstance(module, RouteNorm):
            norm: nn.Module = module.for_route(self.route)
            if isinstance(norm, nn.BatchNorm2d):
                return Norm(output=node.name, input=self._value(node.args[0]), norm=norm)
            return Call(output=node.name, function=norm, arguments=(self._value(node.args[0]),))
        if isinstance(module, nn.LayerNorm):
            return Call(output=node.name, function=module, arguments=(self._value(node.args[0]),))
        if isinstance(module, AttentionProducts) and not node.kwargs:
            queries, keys, values, *added = map(self._value, node.args)
            return Products(
                output=node.name, queries=queries, keys=keys, values=values, products=module, bias=next(iter(added), None)
            )
        return self._call(node, module)

    def _of_function(self, node: fx.Node) -> Step:
        if node.target in (torch.relu, F.relu):
            return Relu(output=node.name, input=self._value(node.args[0]))
        if node.target in _POINTWISE_FUNCTIONS:
            call = self._call(node, node.target)
            return Pointwise(output=node.name, input=call.arguments[0], function=call.function)
        if node.target in (operator.add, torch.add, operator.iadd) and len(self._names(node)) == 2 and not node.kwargs:
            left, right = self._names(node)
            return Add(output=node.name, left=left, right=right)
        if node.target is operator.getitem and (stride := _stride_of(node.args[1])):
            return Subsample(output=node.name, input=self._value(node.args[0]), stride=stride)
        channelwise = node.target is operator.mul and len(self._names(node)) == 2
        moves = node.target in _MOVING_FUNCTIONS
        return self._call(node, cast("Callable[..., Any]", node.target), channelwise=channelwise, moves=moves)

    def _of_method(self, node: fx.Node) -> Step:
        if node.target == "mean" and _is_over_pixels(node):
            return Mean(output=node.name, input=self._value(node.args[0]))
        method = cast(str, node.target)
        if method in _POINTWISE_METHODS:
            call = self._call(node, _Method(method))
            return Pointwise(output=node.name, input=call.arguments[0], function=call.function)
        channelwise = method == "mean" and _keeps_channels(node)
        return self._call(node, _Method(method), channelwise=channelwise, moves=method in _MOVING_METHODS)

    def _call(self, node: fx.Node, function: Callable[..., Any], *, channelwise: bool = False, moves: bool = False) -> Call:
        """A node as a call of torch."""
        operands = {argument: _Operand(index) for index, argument in enumerate(node.all_input_nodes)}
        args, kwargs = _with_leaves(
            (node.args, node.kwargs), lambda leaf: operands[leaf] if isinstance(leaf, fx.Node) else leaf
        )
        bound = _Bound(function, args, kwargs)
        return Call(output=node.name, function=bound, arguments=self._names(node), channelwise=channelwise, moves=moves)

    def _names(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(self.values[argument] for argument in node.all_input_nodes)

    def _value(self, argument: Any) -> str:
        return self.values[argument]

    def _add(self, step: Step) -> str:
        self.steps.append(step)
        return step.output


def _with_leaves(arguments: Any, change: Callable[[Any], Any]) -> Any:
    """Arguments with each value changed, inside lists, tuples, mappings and slices as well."""
    return fx.node.map_aggregate(arguments, change)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a convolution that a ``Conv`` step can be."""
    return (
        type(module) is nn.Conv2d
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1]
    )


def _is_square(pool: nn.MaxPool2d) -> bool:
    simple = not pool.return_indices and not pool.ceil_mode and _side(pool.dilation) == 1
    return simple and all(_side(size) > -1 for size in (pool.kernel_size, pool.stride, pool.padding))


def _side(size: int | tuple[int, ...]) -> int:
    """The side of a square size; -1 if it is not square."""
    if isinstance(size, int):
        return size
    return size[0] if len(set(size)) == 1 else -1


def _stride_of(index: Any) -> int:
    """The stride k of an index ``[:, :, ::k, ::k]``; 0 for another index."""
    match index:
        case (slice(start=None, stop=None, step=None), slice(start=None, stop=None, step=None), slice(), slice()):
            strides = {(part.start, part.stop, part.step) for part in index[2:]}
            start, stop, stride = strides.pop()
            return stride if not strides and start is stop is None and isinstance(stride, int) else 0
    return 0


def _is_over_pixels(node: fx.Node) -> bool:
    return not node.kwargs.keys() - {"dim"} and _reduces_pixels(node)


def _keeps_channels(node: fx.Node) -> bool:
    """Whether a mean over the pixels leaves one pixel, (N, C, 1, 1)."""
    return node.kwargs.keys() - {"dim"} == {"keepdim"} and node.kwargs["keepdim"] is True and _reduces_pixels(node)


def _reduces_pixels(node: fx.Node) -> bool:
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    known = isinstance(dim, (tuple, list)) and len(node.args) <= 2
    return known and sorted(cast("list[int]", dim)) in ([2, 3], [-2, -1])
