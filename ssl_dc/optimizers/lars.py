"""SGD with layer-wise adaptive rate scaling (You et al. 2017), clipped, as the paper's runs use it (method section 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.optimizers.options import LARSOptions


class LARS(Optimizer):
    """Momentum SGD that first scales the gradient of each parameter.

    With learning rate ``lr`` and ``q = eta |p| / (|g| + wd |p| + 1e-8)``, a parameter of two or more dimensions moves by
    momentum SGD along ``min(q / lr, 1) (g + wd p)``. A 1-D parameter (bias, norm) is neither scaled nor decayed.

    Args:
        groups: Parameter groups, as for any torch optimiser. Each may set its own ``weight_decay``.
        lr: Learning rate, at least 0.
        momentum: In [0, 1).
        weight_decay: At least 0.
        trust: The trust coefficient eta.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], lr: float, momentum: float, weight_decay: float, trust: float
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step. ``closure``, if given, computes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._move(group)
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        """Move all parameters of a group together, with a few calls on lists of tensors."""
        directions: dict[Tensor, Tensor] = {p: p.grad for p in group["params"] if p.grad is not None}
        if not directions:
            return
        weights = [p for p in directions if p.ndim > 1]
        directions.update(zip(weights, scaled(weights, [directions[p] for p in weights], group), strict=True))
        for p in directions:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in directions]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, list(directions.values()))
        torch._foreach_add_(list(directions), buffers, alpha=-group["lr"])


def scaled(parameters: Sequence[Tensor], grads: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """The decayed gradient of each parameter times its local rate, min(q / lr, 1).

    Args:
        parameters: Parameters of two or more dimensions.
        grads: Their gradients.
        group: Their ``lr``, ``weight_decay`` and ``trust``.
    """
    if not parameters:
        return []
    lr, weight_decay = group["lr"], group["weight_decay"]
    p_norm = torch.stack(torch._foreach_norm(list(parameters)))
    g_norm = torch.stack(torch._foreach_norm(list(grads)))
    q = group["trust"] * p_norm / (g_norm + weight_decay * p_norm + 1e-8)
    # A rate of 0 would keep an all-zero parameter at zero. Without a gradient there is nothing to scale.
    q = torch.where((p_norm > 0) & (g_norm > 0), q, torch.full_like(q, lr))
    local_rates = (q / lr).clamp(max=1.0) if lr > 0 else torch.ones_like(q)
    directions: list[Tensor] = list(torch._foreach_add(list(grads), list(parameters), alpha=weight_decay))
    torch._foreach_mul_(directions, local_rates.unbind())
    return directions


def build(options: LARSOptions, groups: Sequence[ParameterGroup], lr: float) -> Optimizer:
    """The optimiser ``lars``."""
    return LARS(
        [{"params": group.parameters, "weight_decay": options.weight_decay if group.decay else 0.0} for group in groups],
        lr=lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        trust=options.trust,
    )
