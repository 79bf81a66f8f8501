"""Random draws of objectives that all processes of a launch must share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedDraws(nn.Module):
    """Draws that are new for each batch, the same in all processes, and the same again in a resumed run.

    Each draw has a seed of its own. The first is drawn when the objective is built, from the run's seed. The next one is a
    buffer: resume points save it, and all processes have the same.
    """

    next_seed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("next_seed", torch.randint(2**31, ()))

    def slices(self, width: int, count: int) -> Tensor:
        """Directions (width, count) of length 1, uniform on the sphere, one in each column."""
        return F.normalize(torch.randn(width, count, generator=self._generator()), dim=0)

    def permutation(self, n: int) -> Tensor:
        """The numbers below n in a random order."""
        return torch.randperm(n, generator=self._generator())

    def _generator(self) -> torch.Generator:
        """A generator on the CPU, so that the draws are the same on any device."""
        generator = torch.Generator().manual_seed(int(self.next_seed))
        self.next_seed += 1
        return generator
