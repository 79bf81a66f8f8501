"""What a tracker must do: the checks of watchers, since a tracker is a watcher with options."""

from __future__ import annotations

from ssl_dc.testing.watcher import CHECKS

__all__ = ["CHECKS"]
