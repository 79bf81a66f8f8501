"""Records the calls of a network in a graph of ``torch.fx``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import GatePoint
from ssl_dc.norms.base import RouteNorm
from ssl_dc.routes import Route

IMAGES = "images"
"""The name of the input of a graph."""


def trace(network: nn.Module) -> fx.Graph:
    """The graph of a network's forward, which takes images; a gate site, a norm or the products of attention are one call.

    Args:
        network: Must belong to the caller alone.
    """
    return _Tracer(network).record()


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
