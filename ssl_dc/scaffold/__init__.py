"""New plugin packages. Each brings one small part that works, for its author to change."""

from __future__ import annotations

from ssl_dc.scaffold.package import kinds, next_commands, write_package

__all__ = ["kinds", "next_commands", "write_package"]
