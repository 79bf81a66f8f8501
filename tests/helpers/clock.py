"""A clock that tests move."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


class StoppedClock:
    """Seconds that pass only where a test lets them.

    Args:
        monkeypatch: Puts things back after the test.
        module: The module that is shown this clock wherever it asks ``time``; it sleeps without waiting.

    Attributes:
        module: What stands for ``time``, also to be shown to another module.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.seconds = 0.0
        self.module = SimpleNamespace(monotonic=self.read, perf_counter=self.read, sleep=self.pass_by)
        monkeypatch.setattr(f"{module}.time", self.module)

    def read(self) -> float:
        """What the clock shows."""
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds
