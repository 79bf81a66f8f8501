"""The forward pass of a training, compiled by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_dc.devices import expect_cuda_home_without_gpu
from ssl_dc.routes import Route
from ssl_dc.training.learner import LearnerOutput

ROUTES = 64
"""How many different routes of the views, such as one for each budget, are compiled before the rest run uncompiled."""


class CompiledForward:
    """The learner's forward pass, compiled for the routes of each step when they first come.

    torch compiles the backward pass with it. On a GPU both can be recorded as CUDA graphs: a step then launches a few
    graphs in place of more than a thousand kernels, for which the GPU would wait. If torch cannot compile the pass, it runs
    uncompiled from then on, and a message says so. Gates with noise draw other random numbers than uncompiled ones.

    Args:
        wrapped: The learner, as Accelerate prepared it.
        graphs: Whether to record CUDA graphs. They keep gradients in memory of their own, which the next pass overwrites: a
            step must not accumulate the gradients of several passes.
        tell: Takes the message.
    """

    def __init__(self, wrapped: nn.Module, graphs: bool, tell: Callable[[str], object]) -> None:
        expect_cuda_home_without_gpu()
        self._plain, self._tell = wrapped, tell
        self._seen: set[tuple[Route, ...]] = set()
        mode = "reduce-overhead" if graphs else None
        self._compiled: Callable[..., Any] | None = torch.compile(wrapped, dynamic=False, mode=mode)

    def compiles_for(self, routes: Sequence[Route]) -> bool:
        """Whether the next pass for these routes is compiled first."""
        return self._compiled is not None and tuple(routes) not in self._seen

    def __call__(self, views: Sequence[Tensor], routes: Sequence[Route]) -> LearnerOutput:
        """What the learner gives for these views."""
        if self._compiled is not None:
            self._seen.add(tuple(routes))
            try:
                with torch._dynamo.config.patch(cache_size_limit=ROUTES):
                    output: LearnerOutput = self._compiled(views, routes)
                    return output
            except torch._dynamo.exc.TorchDynamoException as error:  # not those of what is computed
                self._compiled = None
                reason = " ".join(str(error).split()).partition(" Set TORCHDYNAMO_VERBOSE")[0]
                self._tell(f"torch cannot compile this training, which goes on uncompiled: {reason[:300]}")
        plain: LearnerOutput = self._plain(views, routes)
        return plain
