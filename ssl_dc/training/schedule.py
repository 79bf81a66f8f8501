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
        peak: The highest learning rate, as a share of the optimiser's own. It is below 1 in a run that is too short to
            reach the whole rate safely.
    """

    warmup_steps: int
    total_steps: int
    peak: float = 1.0

    @classmethod
    def of(cls, warmup_share: float, least_warmup: int, total_steps: int) -> Schedule:
        """The schedule of a training.

        The warm-up takes ``least_warmup`` steps or more. A run of fewer than twice as many steps warms up for half of
        its steps. Its peak is lower in the same proportion, so that the rate rises no faster than in a longer run.

        Args:
            warmup_share: Share of the steps that are warm-up, in [0, 1].
            least_warmup: The least number of steps of warm-up, at least 0.
            total_steps: Steps of the whole run, at least 1.
        """
        wanted = round(warmup_share * total_steps)
        if wanted >= least_warmup:
            return cls(wanted, total_steps)
        possible = max(wanted, min(least_warmup, total_steps // 2))
        return cls(possible, total_steps, max(possible, 1) / least_warmup)

    def share(self, step: int) -> float:
        """The learning rate of a step, from 0, as a share of the optimiser's own."""
        if step < self.warmup_steps:
            return self.peak * (WARMUP_START + (1 - WARMUP_START) * step / self.warmup_steps)
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))
