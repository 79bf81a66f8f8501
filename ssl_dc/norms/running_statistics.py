"""The running statistics of batch norms, which evaluation normalises by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def kept_running_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms normalise as ever, and leave their running statistics as they are.

    Args:
        module: Its batch norms are meant.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
