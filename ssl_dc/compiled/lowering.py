"""Lowers the graph of a network to a plan: each call becomes a step, or another name for a value."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import GatePoint
from ssl_dc.compiled.activations import ACTIVATIONS, Activation, activation_of_function
from ssl_dc.compiled.axis_order import channels_last, flattened_into_tokens, form_of, only_moves
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.attention import Products
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.data_movement import Rearrange, Subsample
from ssl_dc.compiled.steps.elementwise import Add, Multiply, Pointwise, Relu, Scale
from ssl_dc.compiled.steps.gates import Decide, Dial, Mask
from ssl_dc.compiled.steps.pooling import Mean
from ssl_dc.compiled.torch_calls import Constant, Method, bound
from ssl_dc.compiled.torch_layers import step_of_layer, step_of_norm
from ssl_dc.compiled.tracing import IMAGES
from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite
from ssl_dc.norms.base import RouteNorm
from ssl_dc.routes import Route

_POINTWISE_FUNCTIONS = (F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, torch.sigmoid, torch.tanh)
_POINTWISE_METHODS = {"sigmoid", "tanh"}
"""What maps each number by itself, and takes no other value."""
_UNCHANGED = (nn.Identity, nn.Dropout)
"""Layers that give their input in evaluation mode."""


def lower(graph: fx.Graph, network: nn.Module, route: Route) -> Plan:
    """The plan of a graph, with one step for each operation.

    Args:
        graph: The calls of the network, in their order.
        network: What was traced: a module whose only child is the backbone.
        route: The route that was traced, with one budget for all images.
    """
    return _Lowering(network, route).plan(graph)


class _Lowering:
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
        self.channels_last = channels_last(graph, self.modules)
        self.flattened = flattened_into_tokens(graph)
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
        return only_moves(node) and all(argument in self.constants for argument in node.all_input_nodes)

    def _constant(self, node: fx.Node) -> Any:
        """The value of a constant node."""
        if node.op == "get_attr":
            value = operator.attrgetter(cast(str, node.target))(self.network)
            return value.detach() if isinstance(value, Tensor) else value
        function = Method(cast(str, node.target)) if node.op == "call_method" else cast("Callable[..., Any]", node.target)
        return bound(node, function)(*(self.constants[argument] for argument in node.all_input_nodes))

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
        if isinstance(module, RouteNorm):
            norm: nn.Module = module.for_route(self.route)
            return step_of_norm(norm, self._value(node.args[0]), node.name)
        if isinstance(module, AttentionProducts) and not node.kwargs:
            queries, keys, values, *added = map(self._value, node.args)
            return Products(
                output=node.name, queries=queries, keys=keys, values=values, products=module, bias=next(iter(added), None)
            )
        if not node.args or not isinstance(node.args[0], fx.Node):
            return self._call(node, module)
        layer = cast(str, node.target).partition(".")[2]
        step = step_of_layer(module, self._value(node.args[0]), node.name, layer)
        return self._call(node, module) if step is None else step

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
        return self._call(node, function, of_shapes=function is getattr)

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
            function = Activation(method) if method in ACTIVATIONS else Method(method)
            return Pointwise(output=node.name, input=self._value(node.args[0]), function=function)
        form = "tokens" if node.args[0] in self.flattened else form_of(node)
        if form is not None:
            return Rearrange(output=node.name, input=self._value(node.args[0]), form=form)
        return self._call(node, Method(method), of_shapes=method == "size")

    def _call(self, node: fx.Node, function: Callable[..., Any], *, of_shapes: bool = False) -> Call:
        """A node as a call of torch."""
        return Call(
            output=node.name,
            function=bound(node, function),
            arguments=self._names(node),
            moves=only_moves(node),
            of_shapes=of_shapes,
        )

    def _names(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(self._value(argument) for argument in node.all_input_nodes)

    def _value(self, argument: Any) -> str:
        """The name of the value of a node; a constant gets its step here, before the first step that reads it."""
        if argument not in self.values:
            constant = Call(output=argument.name, function=Constant(self.constants[argument]), arguments=())
            self.values[argument] = self._add(constant)
        return self.values[argument]

    def _add(self, step: Step) -> str:
        self.steps.append(step)
        return step.output


def _axis_of(constant: Tensor) -> int:
    """The axis of the channels of a constant with a number for each: 1 in (1, C, 1, 1), -1 in (..., 1, C), else 0."""
    shape = tuple(constant.shape)
    if constant.numel() < 2 or constant.dtype is not torch.float32:
        return 0
    if len(shape) == 4 and shape[1] == constant.numel():
        return 1
    return -1 if shape[-1] == constant.numel() else 0


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
