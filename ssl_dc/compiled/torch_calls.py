"""Calls of torch as functions of the values that depend on the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Method:
    """Calls a method of its first argument."""

    name: str

    def __call__(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        """What the method gives."""
        return getattr(value, self.name)(*args, **kwargs)


@dataclass(frozen=True)
class Constant:
    """Returns a value that does not depend on the images."""

    value: Any

    def __call__(self) -> Any:
        """The value."""
        return self.value


def bound(node: fx.Node, function: Callable[..., Any]) -> Callable[..., Any]:
    """A call with all its arguments but the values.

    Args:
        node: The call.
        function: What it calls.

    Returns:
        A function of the values of ``node.all_input_nodes``, in their order.
    """
    operands = {argument: _Operand(index) for index, argument in enumerate(node.all_input_nodes)}
    args, kwargs = _with_leaves(
        (node.args, node.kwargs), lambda leaf: operands[leaf] if isinstance(leaf, fx.Node) else leaf
    )
    return _Bound(function, args, kwargs)


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


def _with_leaves(arguments: Any, change: Callable[[Any], Any]) -> Any:
    """Arguments with each value changed, inside lists, tuples, mappings and slices as well."""
    return fx.node.map_aggregate(arguments, change)
