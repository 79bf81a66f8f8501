"""Optimisers, one file each."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_optimizers() -> list[Part]:
    """The built-in optimisers."""
    return [
        Part(
            name="lars",
            target="ssl_dc.optimizers.lars:build",
            options="ssl_dc.optimizers.options:LARSOptions",
            summary="SGD with layer-wise adaptive rate scaling (the paper's choice).",
        ),
        Part(
            name="adamw",
            target="ssl_dc.optimizers.adamw:build",
            options="ssl_dc.optimizers.options:AdamWOptions",
            summary="AdamW, for short runs.",
        ),
    ]
