"""torch.compile, for parts that claim that it takes them as one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ssl_dc.testing.check import DoesNotApplyError, Subject


def claims_to_compile(subject: Subject) -> None:
    """Go on if the options of a part say that it compiles.

    Raises:
        DoesNotApplyError: If they do not.
    """
    if not subject.registered.options_model().compiles:
        raise DoesNotApplyError("its options do not say that it compiles")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, compiled by torch.compile as one graph, forward and backward. If that fails, calling it raises.

    The backend is ``aot_eager``. It traces and differentiates like the default backend and only makes no kernels, which
    would take minutes and say nothing about the part.
    """
    torch._dynamo.reset()  # else graphs of earlier parts of the same class count towards the limit of recompilations
    return torch.compile(function, fullgraph=True, backend="aot_eager")
