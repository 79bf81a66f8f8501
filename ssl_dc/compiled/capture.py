"""Traces one route of a backbone into a plan."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone, GatePoint
from ssl_dc.compiled.activations import ACTIVATIONS, Activation, activation_of_function, activation_of_module
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Products
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.data_movement import Flatten, Rearrange, Subsample
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide, Dial, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.compiled.steps.normalisation import LayerNorm, Norm
from ssl_dc.compiled.steps.pooling import MaxPool, Mean
from ssl_dc.errors import RunError
from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite
from ssl_dc.norms.base import RouteNorm
from ssl_dc.routes import Route

IMAGES = "images"

_POINTWISE_MODULES = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.ReLU6)
_POINTWISE_FUNCTIONS = (F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, torch.sigmoid, torch.tanh)
_POINTWISE_METHODS = {"sigmoid", "tanh"}
"""What maps each number by itself, and takes no other value."""
_UNCHANGED = (nn.Identity, nn.Dropout)
"""Layers that give their input in evaluation mode."""
_MOVING_METHODS = {
    *("reshape", "view", "permute", "transpose", "unbind", "contiguous", "chunk", "flatten", "unsqueeze", "squeeze"),
}
_MOVING_FUNCTIONS = (
    operator.getitem,
    *(torch.reshape, torch.permute, torch.transpose, torch.unbind, torch.chunk, torch.flatten, torch.unsqueeze),
)
"""What arranges the elements of its first argument anew."""
_FORMS = {(0, 2, 3, 1): "last", (0, 3, 1, 2): "first"}
"""The permutations that only move the channels."""


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
        self.constants: dict[fx.Node, Any] = {}
        self.channels_last: dict[fx.Node, fx.Node] = {}
        self.flattened: dict[fx.Node, fx.Node] = {}

    @torch.no_grad()
    def plan(self, graph: fx.Graph) -> Plan:
        output = ""
        self.channels_last = _channels_last(graph, self.modules)
        self.flattened = _flattened_into_tokens(graph)
        for node in graph.nodes:
            if node.op == "placeholder":
                self.values[node] = IMAGES
            elif node.op == "output":
                output = self._value(node.args[0])
            elif self._is_constant(node):
                self.constants[node] = self._constant(node)
            else:
                self.values[node] = self._translate(node)
        return Plan(tuple(self.steps), output, IMAGES)

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether the value of a node is a tensor of the network, or such a one in another layout."""
        if node.op == "get_attr":
            return True
        moved = (node.op == "call_method" and node.target in _MOVING_METHODS) or node.target in _MOVING_FUNCTIONS
        return moved and all(argument in self.constants for argument in node.all_input_nodes)

    def _constant(self, node: fx.Node) -> Any:
        """The value of a constant node."""
        if node.op == "get_attr":
            value = operator.attrgetter(cast(str, node.target))(self.network)
            return value.detach() if isinstance(value, Tensor) else value
        args, kwargs = _with_leaves(
            (node.args, node.kwargs), lambda leaf: self.constants[leaf] if isinstance(leaf, fx.Node) else leaf
        )
        function = _Method(cast(str, node.target)) if node.op == "call_method" else cast("Callable[..., Any]", node.target)
        return function(*args, **kwargs)

    def _translate(self, node: fx.Node) -> str:
        """Add the step of a node; the name of the node's value."""
        if node in self.channels_last:
            return self._value(self.channels_last[node])
        if node in self.flattened:
            return self._value(self.flattened[node])
        if node.op == "call_module":
            module = self.modules[cast(str, node.target)]
            if isinstance(module, _UNCHANGED):
                return self._value(node.args[0])
            if isinstance(module, GatePoint):
                return self._gate(node, module)
            return self._add(self._of_module(node, module))
        if node.op == "call_function":
            return self._add(self._of_function(node))
        return self._add(self._of_method(node))

    def _gate(self, node: fx.Node, point: GatePoint) -> str:
        activation = self._value(node.args[0])
        if not self.route.gated or point.gate is None:
            return activation
        if not any(isinstance(step, Decide) and step.site == point.site for step in self.steps):
            axis = -1 if node.args[1] in self.channels_last else 1
            self._decide(point.site, point.gate, self._value(node.args[1]), axis)
        return self._add(Mask(output=node.name, input=activation, site=point.site))

    def _decide(self, site: GateSite, gate: Gate, decided_on: str, axis: int) -> None:
        """Add the decision of a gate, as early as it can be made."""
        decision = Decide(output=site.name, input=decided_on, site=site, gate=gate, dial=self.dial, axis=axis)
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
            function = activation_of_module(module) or module
            return Pointwise(output=node.name, input=self._value(node.args[0]), function=function)
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
            return self._norm(node, norm)
        if isinstance(module, nn.LayerNorm):
            return self._norm(node, module)
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            return Mean(output=node.name, input=self._value(node.args[0]), keepdim=True)
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return Flatten(output=node.name, input=self._value(node.args[0]))
        if isinstance(module, AttentionProducts) and not node.kwargs:
            queries, keys, values, *added = map(self._value, node.args)
            return Products(
                output=node.name, queries=queries, keys=keys, values=values, products=module, bias=next(iter(added), None)
            )
        return self._call(node, module)

    def _norm(self, node: fx.Node, norm: nn.Module) -> Step:
        """A batch norm, a layer norm over channels, or any other norm, which torch computes."""
        value = self._value(node.args[0])
        if isinstance(norm, nn.BatchNorm2d):
            return Norm(output=node.name, input=value, norm=norm)
        axis = _normalised_axis(norm) if isinstance(norm, nn.LayerNorm) else 0
        if not isinstance(norm, nn.LayerNorm) or not axis:
            return Call(output=node.name, function=norm, arguments=(value,))
        weight, bias = _affine(norm)
        return LayerNorm(output=node.name, input=value, weight=weight, bias=bias, eps=norm.eps, axis=axis)

    def _of_function(self, node: fx.Node) -> Step:
        if node.target in (torch.relu, F.relu):
            return Relu(output=node.name, input=self._value(node.args[0]))
        if node.target in _POINTWISE_FUNCTIONS:
            call = self._call(node, node.target)
            options = node.kwargs if len(node.args) == 1 else {"more": node.args[1:]}
            function = activation_of_function(node.target, options) or call.function
            return Pointwise(output=node.name, input=call.arguments[0], function=function)
        if node.target in (operator.add, torch.add, operator.iadd) and len(self._names(node)) == 2 and not node.kwargs:
            left, right = self._names(node)
            return Add(output=node.name, left=left, right=right)
        if node.target is operator.getitem and (stride := _stride_of(node.args[1])):
            return Subsample(output=node.name, input=self._value(node.args[0]), stride=stride)
        if node.target in (operator.mul, torch.mul) and _is_of_two(node):
            return self._product(node)
        function = cast("Callable[..., Any]", node.target)
        return self._call(node, function, moves=function in _MOVING_FUNCTIONS, of_shapes=function is getattr)

    def _product(self, node: fx.Node) -> Step:
        """The product of two values, or of a value with a constant for each channel."""
        for value, factor in (node.args, node.args[::-1]):
            constant = self.constants.get(cast(fx.Node, factor))
            axis = _axis_of(constant) if isinstance(constant, Tensor) and value not in self.constants else 0
            if isinstance(constant, Tensor) and axis:
                return Scale(output=node.name, input=self._value(value), factor=constant.flatten(), axis=axis)
        return Multiply(output=node.name, left=self._value(node.args[0]), right=self._value(node.args[1]))

    def _of_method(self, node: fx.Node) -> Step:
        method = cast(str, node.target)
        if method == "mean" and (_is_over_pixels(node) or _keeps_channels(node)):
            return Mean(output=node.name, input=self._value(node.args[0]), keepdim=_keeps_channels(node))
        if method == "mul" and _is_of_two(node):
            return self._product(node)
        if method in _POINTWISE_METHODS:
            function = Activation(method) if method in ACTIVATIONS else _Method(method)
            return Pointwise(output=node.name, input=self._value(node.args[0]), function=function)
        form = "tokens" if node.args[0] in self.flattened else _FORMS.get(_order_of(node))
        if form is not None:
            return Rearrange(output=node.name, input=self._value(node.args[0]), form=form)
        return self._call(node, _Method(method), moves=method in _MOVING_METHODS, of_shapes=method == "size")

    def _call(self, node: fx.Node, function: Callable[..., Any], *, moves: bool = False, of_shapes: bool = False) -> Call:
        """A node as a call of torch."""
        operands = {argument: _Operand(index) for index, argument in enumerate(node.all_input_nodes)}
        args, kwargs = _with_leaves(
            (node.args, node.kwargs), lambda leaf: operands[leaf] if isinstance(leaf, fx.Node) else leaf
        )
        bound = _Bound(function, args, kwargs)
        return Call(output=node.name, function=bound, arguments=self._names(node), moves=moves, of_shapes=of_shapes)

    def _names(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(self._value(argument) for argument in node.all_input_nodes)

    def _value(self, argument: Any) -> str:
        """The name of the value of a node; a constant gets its step here, before the first step that reads it."""
        if argument not in self.values:
            constant = Call(output=argument.name, function=_Constant(self.constants[argument]), arguments=())
            self.values[argument] = self._add(constant)
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


def _channels_last(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """Nodes that only turn a value (N, T, C) or (N, H, W, C) into an image for gates, each with that value."""
    found: dict[fx.Node, fx.Node] = {}

    def for_gates(node: fx.Node) -> bool:
        points = (user for user in node.users if user.op == "call_module")
        return len(node.users) == sum(
            isinstance(modules[cast(str, user.target)], GatePoint) and user.args[0] is not node for user in points
        )

    for node in graph.nodes:
        match _order_of(node):
            case (0, 3, 1, 2) if for_gates(node):
                found[node] = node.args[0]
            case (0, 2, 1):
                columns = [
                    user
                    for user in node.users
                    if (user.op, user.target, user.args[1:]) == ("call_method", "unsqueeze", (-1,))
                ]
                if len(columns) == len(node.users) and all(map(for_gates, columns)):
                    found |= dict.fromkeys((node, *columns), node.args[0])
    return found


def _order_of(node: fx.Node) -> tuple[Any, ...]:
    """The order of the axes of a node that permutes them; () for any other node."""
    if node.op != "call_method" or node.target != "permute":
        return ()
    order = node.args[1:]
    return tuple(order[0]) if len(order) == 1 and isinstance(order[0], (tuple, list)) else tuple(order)


def _flattened_into_tokens(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Nodes ``x.flatten(2)`` that are read as ``x.flatten(2).transpose(1, 2)`` only, each with x."""
    found: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        users = [(user.op, user.target, user.args[1:]) for user in node.users]
        turned = users in ([("call_method", "transpose", (1, 2))], [("call_method", "transpose", (2, 1))])
        if turned and (node.op, node.target, node.args[1:], node.kwargs) == ("call_method", "flatten", (2,), {}):
            found[node] = node.args[0]
    return found


def _normalised_axis(norm: nn.LayerNorm) -> int:
    """The axis of the channels that a layer norm normalises: 1 or -1; 0 if it does something else."""
    if len(norm.normalized_shape) != 1:
        return 0
    (channels,) = norm.normalized_shape
    weight, bias = _affine(norm)
    for axis, shape in ((-1, (1, 2, channels)), (1, (1, channels, 2, 1))):
        x = torch.arange(2 * channels, dtype=torch.float32).sin().view(shape)
        try:
            y = norm(x)
        except (RuntimeError, ValueError, IndexError):  # it takes no value of this shape
            continue
        plain = nn.functional.layer_norm(x.movedim(axis, -1), (channels,), weight, bias, norm.eps).movedim(-1, axis)
        if y.shape == x.shape and torch.allclose(y, plain, rtol=1e-4, atol=1e-5):
            return axis
    return 0


def _affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer norm, (channels,) each."""
    shape = norm.normalized_shape
    weight = torch.ones(shape) if norm.weight is None else norm.weight.detach()
    return weight, torch.zeros(shape) if norm.bias is None else norm.bias.detach()


def _axis_of(constant: Tensor) -> int:
    """The axis of the channels of a constant with a number for each: 1 in (1, C, 1, 1), -1 in (..., 1, C), else 0."""
    shape = tuple(constant.shape)
    if constant.numel() < 2 or constant.dtype is not torch.float32:
        return 0
    if len(shape) == 4 and shape[1] == constant.numel():
        return 1
    return -1 if shape[-1] == constant.numel() else 0


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


def _is_of_two(node: fx.Node) -> bool:
    """Whether a node reads two values and no numbers."""
    return len(node.all_input_nodes) == len(node.args) == 2 and not node.kwargs


def _is_over_pixels(node: fx.Node) -> bool:
    return not node.kwargs.keys() - {"dim"} and _reduces_pixels(node)


def _keeps_channels(node: fx.Node) -> bool:
    """Whether a mean over the pixels leaves one pixel, (N, C, 1, 1)."""
    return node.kwargs.keys() - {"dim"} == {"keepdim"} and node.kwargs["keepdim"] is True and _reduces_pixels(node)


def _reduces_pixels(node: fx.Node) -> bool:
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    known = isinstance(dim, (tuple, list)) and len(node.args) <= 2
    return known and sorted(cast("list[int]", dim)) in ([2, 3], [-2, -1])
