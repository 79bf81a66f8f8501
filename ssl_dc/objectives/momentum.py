"""A momentum copy of the network, for objectives whose targets come from one: BYOL's target, DINO's teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ssl_dc.objectives.options import MomentumOptions
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from ssl_dc.encoders.base import Encoder

BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Buffers of batch norms. The copy's own forward passes update them."""


def momentum_at(progress: float, start: float) -> float:
    """The share of itself that the copy keeps at a step: 1 - (1 - start) * (cos(pi * progress) + 1) / 2.

    Source: Grill et al. 2020. Caron et al. 2021 use the same schedule.

    Args:
        progress: The share of training done, in [0, 1].
        start: The share at the first step, in [0, 1].
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def follow(copied: nn.Module, network: nn.Module, momentum: float) -> None:
    """Move a copy towards the network that it was copied from.

    Its parameters become momentum * its own + (1 - momentum) * the network's. It keeps its own batch statistics, which its
    forward passes gather. Any other buffer, such as the thresholds of a gate, becomes the network's.

    Args:
        copied: The copy. It is changed in place.
        network: The network.
        momentum: The share of itself that the copy keeps, in [0, 1].
    """
    for own, parameter in zip(copied.parameters(), network.parameters(), strict=True):
        own.lerp_(parameter, 1 - momentum)
    for (name, buffer), of_network in zip(copied.named_buffers(), network.buffers(), strict=True):
        if not name.endswith(BATCH_STATISTICS):
            buffer.copy_(of_network)


class MomentumTarget(nn.Module):
    """A copy of encoder and head that slowly follows them. What it makes of a view is a target.

    Make it a submodule of the objective, call :meth:`bind` in the objective's ``bind`` and :meth:`follow` in its
    ``after_step``. It is then saved, moved to a device and set to training mode with the objective. Nothing in it requires
    a gradient, so no optimiser trains it.

    Args:
        options: Momentum, and the route of the copy.
    """

    def __init__(self, options: MomentumOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder: Encoder | None = None
        self.head: nn.Module | None = None

    def bind(self, encoder: Encoder, head: nn.Module) -> None:
        """Copy the encoder and the head that will be trained."""
        self.encoder = copy.deepcopy(encoder).requires_grad_(requires_grad=False)
        self.head = copy.deepcopy(head).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def forward(self, images: Sequence[Tensor], routes: Sequence[Route]) -> list[Tensor]:
        """The target of each view.

        Args:
            images: One tensor (N, 3, H, W) for each view.
            routes: The route that the network takes for each view.

        Returns:
            The output of the copied head, for each view.

        Raises:
            RuntimeError: If nothing was copied yet.
        """
        encoder, head = self._copies()
        own = routes if self.options.target_route == "same" else [Route.DENSE] * len(routes)
        return [head(encoder(view, route).features) for view, route in zip(images, own, strict=True)]

    def follow(self, encoder: Encoder, head: nn.Module, progress: float) -> None:
        """Move the copy towards the network.

        Args:
            encoder: The encoder that is trained.
            head: The head that is trained.
            progress: The share of training done, in [0, 1].

        Raises:
            RuntimeError: If nothing was copied yet.
        """
        momentum = momentum_at(progress, self.options.momentum)
        for copied, network in zip(self._copies(), (encoder, head), strict=True):
            follow(copied, network, momentum)

    def _copies(self) -> tuple[nn.Module, nn.Module]:
        if self.encoder is None or self.head is None:
            raise RuntimeError("there is no momentum target yet: call bind(encoder) before training")
        return self.encoder, self.head
