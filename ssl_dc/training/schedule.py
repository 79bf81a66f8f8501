"""The learning rate by step: linear warm-up, then a cosine to 0 (method section 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARMUP_START = 0.01
"""The learning rate at the first step of warm-up, as a share of its peak: 0.003 of 0.3."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step alone, so that there is no state to save.

    Attributes:
        warmup_steps: Steps of the linear warm-up, which begins at a hundredth of the peak.
        total_steps: Steps of the whole run.
    """

    warmup_steps: int
    total_steps: int

    def share(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of its peak."""
        if step < self.warmup_steps:
            return WARMUP_START + (1 - WARMUP_START) * step / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
