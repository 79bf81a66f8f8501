"""From a backbone to a plan: one route of it, traced."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ssl_dc.backbones.base import Backbone, GatePoint
from ssl_dc.compiled.plan import Add, Call, Conv, Decide, Mask, MaxPool, Mean, Norm, Plan, Relu, Step
from ssl_dc.errors import RunError
from ssl_dc.norms.base import RouteNorm
from ssl_dc.routes import Route

IMAGES = "images"


def capture(backbone: Backbone, route: Route) -> Plan:
    """The plan of one route of a backbone in evaluation mode, a step for each thing that it does.

    Raises:
        RunError: If the backbone's forward cannot be traced, as when it branches on what it has computed.
    """
    network = _OneRoute(backbone, route)
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # a stranger's forward may do anything
        raise RunError(
            f"{type(backbone).__name__}'s forward cannot be traced, which compiling it needs:"
            f" {type(error).__name__}: {error}"
        ) from error
    return _Translation(network, route).plan(graph)


class _OneRoute(nn.Module):
    """A backbone on one route: images to features."""

    def __init__(self, backbone: Backbone, route: Route) -> None:
        super().__init__()
        self.backbone = backbone
        self.route = route

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(images, self.route)[0])


class _Tracer(fx.Tracer):
    """Sees gate sites and norms as wholes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (GatePoint, RouteNorm)) or super().is_leaf_module(m, module_qualified_name)


class _Translation:
    """Each node of a graph as a step, or as another name for a value."""

    def __init__(self, network: nn.Module, route: Route) -> None:
        self.modules = dict(network.named_modules())
        self.route = route
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
        """The name of the value that a node gives, its step added."""
        if node.op == "call_module":
            module = self.modules[cast(str, node.target)]
            if isinstance(module, nn.Identity):
                return self._value(node.args[0])
            if isinstance(module, GatePoint):
                return self._gate(node, module)
            return self._add(self._of_module(node, module))
        return self._add(self._of_function(node))

    def _gate(self, node: fx.Node, point: GatePoint) -> str:
        activation = self._value(node.args[0])
        if not self.route.gated or point.gate is None:
            return activation
        decided = Decide(
            output=point.site.name,
            input=self._value(node.args[1]),
            site=point.site,
            gate=point.gate,
            budget=self.route.budget,
        )
        self.steps.insert(self._after(decided.input), decided)
        return self._add(Mask(output=node.name, input=activation, site=point.site))

    def _after(self, value: str) -> int:
        """Where the first step may stand that reads a value and those that decide on it already."""
        makers = [index for index, step in enumerate(self.steps) if step.output == value]
        index = makers[-1] + 1 if makers else 0
        while index < len(self.steps) and isinstance(self.steps[index], Decide):
            index += 1
        return index

    def _of_module(self, node: fx.Node, module: nn.Module) -> Step:
        if isinstance(module, nn.Conv2d) and _is_plain(module):
            bias = torch.zeros(module.out_channels) if module.bias is None else module.bias.detach()
            return Conv(
                output=node.name,
                input=self._value(node.args[0]),
                layer=cast(str, node.target).partition(".")[2],
                weight=module.weight.detach(),
                bias=bias,
                stride=module.stride[0],
                padding=cast("tuple[int, int]", module.padding),
            )
        if isinstance(module, nn.ReLU):
            return Relu(output=node.name, input=self._value(node.args[0]))
        if isinstance(module, nn.MaxPool2d) and _is_square(module):
            return MaxPool(
                output=node.name,
                input=self._value(node.args[0]),
                kernel=_one(module.kernel_size),
                stride=_one(module.stride),
                padding=_one(module.padding),
            )
        if isinstance(module, RouteNorm):
            return Norm(output=node.name, input=self._value(node.args[0]), norm=module.for_route(self.route))
        return self._call(node, module)

    def _of_function(self, node: fx.Node) -> Step:
        if node.op == "call_function":
            if node.target in (torch.relu, F.relu):
                return Relu(output=node.name, input=self._value(node.args[0]))
            if node.target in (operator.add, torch.add, operator.iadd) and len(self._names(node)) == 2 and not node.kwargs:
                left, right = self._names(node)
                return Add(output=node.name, left=left, right=right)
            return self._call(node, cast("Callable[..., Any]", node.target))
        if node.op == "call_method":
            if node.target == "mean" and _is_over_pixels(node):
                return Mean(output=node.name, input=self._value(node.args[0]))
            method = cast(str, node.target)
            return self._call(node, lambda value, *args, **kwargs: getattr(value, method)(*args, **kwargs))
        attribute = operator.attrgetter(cast(str, node.target))(self.modules[""])
        return Call(output=node.name, function=lambda: attribute, arguments=())

    def _call(self, node: fx.Node, function: Callable[..., Any]) -> Call:
        """A node as a call of torch, its constants bound."""

        def call(*values: Any) -> Any:
            given = dict(zip(node.all_input_nodes, values, strict=True))
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda argument: given[argument])
            return function(*args, **kwargs)

        return Call(output=node.name, function=call, arguments=self._names(node))

    def _names(self, node: fx.Node) -> tuple[str, ...]:
        return tuple(self.values[argument] for argument in node.all_input_nodes)

    def _value(self, argument: Any) -> str:
        return self.values[argument]

    def _add(self, step: Step) -> str:
        self.steps.append(step)
        return step.output


def _is_plain(conv: nn.Conv2d) -> bool:
    return (
        conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.stride[0] == conv.stride[1]
        and type(conv) is nn.Conv2d
    )


def _is_square(pool: nn.MaxPool2d) -> bool:
    simple = not pool.return_indices and not pool.ceil_mode and _one(pool.dilation) == 1
    return simple and all(_one(size) > -1 for size in (pool.kernel_size, pool.stride, pool.padding))


def _one(size: int | tuple[int, ...]) -> int:
    """The one number of a square size; -1 for another."""
    if isinstance(size, int):
        return size
    return size[0] if len(set(size)) == 1 else -1


def _is_over_pixels(node: fx.Node) -> bool:
    dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    others = {name for name in node.kwargs if name != "dim"} or len(node.args) > 2
    return not others and isinstance(dim, (tuple, list)) and sorted(cast("list[int]", dim)) in ([2, 3], [-2, -1])
