"""Optimisers of torch that update all parameters with one kernel."""

from __future__ import annotations

from torch.optim import SGD, Adam, AdamW, Optimizer


def fuse(optimizer: Optimizer) -> None:
    """Let an optimiser of torch move all parameters of a group with one kernel for the whole update, where a GPU has one.

    Numbers differ by rounding. The state is what it was, so a resume point serves both. Call it before a state is restored.
    An optimiser that was told which kernels to use is left as it is.
    """
    for group in optimizer.param_groups if isinstance(optimizer, (Adam, AdamW, SGD)) else ():
        if not any(group.get(told) for told in ("foreach", "capturable", "differentiable")) and group["fused"] is None:
            group["fused"] = True
