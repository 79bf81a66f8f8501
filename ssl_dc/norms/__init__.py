"""Norm policies: whether the two routes share batch-norm statistics; one file each."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_norms() -> list[Part]:
    """The built-in norm policies."""
    return [
        Part(
            name="separate",
            target="ssl_dc.norms.separate:SeparateNorms",
            options="ssl_dc.norms.options:SeparateNormsOptions",
            summary="Each route its own batch norm inside residual blocks (the paper's choice).",
        ),
        Part(
            name="shared",
            target="ssl_dc.norms.shared:SharedNorms",
            options="ssl_dc.norms.options:SharedNormsOptions",
            summary="One batch norm for both routes.",
        ),
    ]
