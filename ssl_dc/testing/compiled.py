"""torch.compile, for the parts that claim to bear it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ssl_dc.testing.check import DoesNotApplyError, Subject


def claims_to_compile(subject: Subject) -> None:
    """Does nothing for a part whose options say that it compiles.

    Raises:
        DoesNotApplyError: For another part.
    """
    if not subject.registered.options_model().compiles:
        raise DoesNotApplyError("its options do not say that it compiles")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as torch.compile makes it: one graph, forward and backward, or an error.

    Run by the backend ``aot_eager``, which traces and differentiates like the default one, and leaves out only the
    making of kernels, which takes minutes and says nothing about the part.
    """
    torch._dynamo.reset()  # else graphs of earlier parts of the same class count towards the limit of recompilations
    return torch.compile(function, fullgraph=True, backend="aot_eager")
