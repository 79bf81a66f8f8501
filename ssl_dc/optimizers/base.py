"""The parameters that an optimiser part is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from ssl_dc.plugins.options import PartOptions


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are treated alike.

    Attributes:
        parameters: At least one parameter.
        decay: Whether weight decay applies. It does not apply to gates.
    """

    parameters: Sequence[nn.Parameter]
    decay: bool


BuildOptimizer = Callable[[PartOptions, Sequence[ParameterGroup], float], Optimizer]
"""An optimiser part: it builds an optimiser from options, parameter groups and the peak learning rate."""
