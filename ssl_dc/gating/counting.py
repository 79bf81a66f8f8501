"""Counts the cost of a computation by torch, independently of what parts say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted_macs(compute: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-accumulates of the convolutions and matrix products that ``compute(*arguments)`` runs."""
    # torch does not count its fused attention on CPUs; its plain one is matrix products, which it counts
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        compute(*arguments)
    return int(counter.get_total_flops()) // 2
