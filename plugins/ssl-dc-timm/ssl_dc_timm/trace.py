"""Records a network of timm's as a graph of its layers and functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import DropBlock2d, DropPath, PatchDropout, get_notrace_functions, get_notrace_modules
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

import ssl_dc
from ssl_dc_timm.norms import NORMS

BATCH = 2
"""Images in the batch that shapes are recorded for. Sizes of other axes may be equal to it."""

_ACTIVATIONS = ("timm.layers.activations", "timm.layers.activations_me")
"""Modules of timm that hold activation layers, beside those of torch."""


class UntraceableError(Exception):
    """A network whose forward cannot be recorded, with the reason."""


class TracedNetwork:
    """A network as a graph, with what each value of the graph looks like.

    Args:
        graph: The network; its only input is the images.
        image_size: Side in pixels of the images that shapes are recorded for.

    Attributes:
        graph: The network.
        macs: What torch counts in it for one image.
        nodes: Its nodes in the order in which they run.
        index: The place of each node in that order.
        images: The node of the images.
    """

    def __init__(self, graph: fx.GraphModule, image_size: int) -> None:
        self.graph = graph
        self.nodes = list(graph.graph.nodes)
        self.index = {node: number for number, node in enumerate(self.nodes)}
        self.images = self.nodes[0]
        self._modules = dict(graph.named_modules())
        tensors = {f"graph.{name}": torch.empty_like(value, device="meta") for name, value in _tensors(graph)}
        images = torch.empty(BATCH, 3, image_size, image_size, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._values = torch.func.functional_call(_Values(graph), tensors, images)
        self.macs = counter.get_total_flops() // 2 // BATCH
        self._from_images = self._find_what_depends_on_images()

    @property
    def features(self) -> int:
        """Width of the features."""
        return self.shape(self.nodes[-1])[1]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """The shape of a tensor for a batch of :data:`BATCH` images; () for any other value."""
        value = self._values[node]
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def module(self, node: fx.Node) -> nn.Module | None:
        """The layer that a node calls, if it calls one."""
        return self._modules[cast(str, node.target)] if node.op == "call_module" else None

    def is_of_images(self, node: fx.Node) -> bool:
        """Whether a value is a tensor, or holds some, that depends on the images."""
        return self._from_images[node]

    def cuts(self) -> list[fx.Node]:
        """The tensors through which everything that is known of the images passes, in order. The first is the images.

        Outside these values something goes around: a shortcut, or another branch.
        """
        last = {node: max((self.index[user] for user in node.users), default=-1) for node in self.nodes}
        alive: set[fx.Node] = set()
        found = []
        for number, node in enumerate(self.nodes):
            if self.is_of_images(node):
                alive = {each for each in alive if last[each] > number} | {node}
                if len(alive) == 1 and self.shape(node):
                    found.append(node)
        return found

    def _find_what_depends_on_images(self) -> dict[fx.Node, bool]:
        depends: dict[fx.Node, bool] = {}
        for node in self.nodes:
            reads = node is self.images or any(depends[each] for each in node.all_input_nodes)
            depends[node] = reads and _holds_tensors(self._values[node])
        return depends


def traced(network: nn.Module, image_size: int) -> TracedNetwork:
    """Record a network, in whose place the graph can be trained and evaluated.

    Args:
        network: Its layers are used, and not copied.
        image_size: Side in pixels of the images that shapes are recorded for.

    Raises:
        UntraceableError: If its forward branches on values, or trains by other operations than it evaluates by.
    """
    was_training = network.training
    try:
        roots = [_Images(network), _Images(network)]
        graphs = [_Tracer().trace(root.train(training)) for root, training in zip(roots, (False, True), strict=True)]
    except Exception as error:  # any forward may raise anything when it meets stand-ins for values
        raise UntraceableError(f"its forward cannot be traced ({type(error).__name__}: {error})") from error
    finally:
        network.train(was_training)
    if str(graphs[0]) != str(graphs[1]):
        raise UntraceableError("it runs other operations in training than in evaluation, beside its layers")
    graph = graphs[0]
    for name, constant in roots[0].__dict__.items():
        if isinstance(constant, Tensor):  # a tensor that the forward makes of none of the images
            network.register_buffer(name, constant, persistent=False)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix("network.")
        if node.target is torch._assert:  # its text was made with stand-ins for values
            node.args = (node.args[0], re.sub(r" \(Proxy\(\w+\)\)", "", str(node.args[1])))
    made = fx.GraphModule(network, graph, type(network).__name__)
    _name_attention_products(made)
    made.recompile()
    return TracedNetwork(made, image_size)


class _Images(nn.Module):
    """A network that takes images and nothing else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images))


class _Tracer(fx.Tracer):
    """Records layers as one node each, whether they are torch's or timm's."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(each for each in get_notrace_functions() if callable(each)))
        self._leaves = (*get_notrace_modules(), *NORMS, nn.Conv2d, nn.Linear, DropPath, DropBlock2d, PatchDropout)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, self._leaves) or type(m).__module__ in _ACTIVATIONS
        return ours or super().is_leaf_module(m, module_qualified_name)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from ((name, value.detach()) for name, value in module.named_parameters())
    yield from module.named_buffers()


class _Values(nn.Module):
    """Runs a graph and gives the value of every node."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> dict[fx.Node, Any]:
        interpreter = _ShapeInterpreter(self.graph, garbage_collect_values=False)
        interpreter.run(images)
        return dict(interpreter.env)


class _ShapeInterpreter(fx.Interpreter):
    """Runs a graph where only shapes matter: what keeps the shape is left out."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = isinstance(self.fetch_attr(target), (*NORMS, nn.Identity, nn.Dropout, DropPath, DropBlock2d))
        return args[0] if kept else super().call_module(target, args, kwargs)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_holds_tensors, value)))


def _name_attention_products(graph: fx.GraphModule) -> None:
    """Make each call of torch's attention a layer with a name, so that it can be counted and gated."""
    for node in list(graph.graph.nodes):
        if node.target is F.scaled_dot_product_attention and (arguments := _plain_attention(node)) is not None:
            operands, scale = arguments
            name = _unused(graph, f"{_module_around(node)}products")
            graph.add_submodule(name, ssl_dc.AttentionProducts(scale))
            with graph.graph.inserting_before(node):
                made = graph.graph.call_module(name, operands)
            node.replace_all_uses_with(made)
            graph.graph.erase_node(node)


def _plain_attention(node: fx.Node) -> tuple[tuple[Any, ...], float | None] | None:
    """Queries, keys, values and bias of a call of torch's attention, and its scale; None if it does anything else."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    scale = given.pop("scale", None)
    others = given.pop("dropout_p", 0.0), given.pop("is_causal", False), given.pop("enable_gqa", False)
    if any(others) or not isinstance(scale, (float, int, type(None))):
        return None
    bias = given.pop("attn_mask", None)
    operands = (given.pop("query"), given.pop("key"), given.pop("value"))
    return None if given else ((*operands, bias) if bias is not None else operands, scale)


def _module_around(node: fx.Node) -> str:
    """The name of the module whose forward made a node, with a dot; empty for the network's own."""
    around = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
    name = around[-1].removeprefix("network").removeprefix(".") if around else ""
    return f"{name}." if name else ""


def _unused(graph: fx.GraphModule, name: str) -> str:
    """The name, with a number if a module has it already."""
    taken = {each for each, _ in graph.named_modules()}
    numbers: Iterator[str] = (f"{name}{number}" for number in range(2, 1000))
    return name if name not in taken else next(each for each in numbers if each not in taken)
