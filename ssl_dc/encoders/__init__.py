"""Encoders: how the two routes share weights; one file each."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_encoders() -> list[Part]:
    """The built-in encoders."""
    return [
        Part(
            name="double",
            target="ssl_dc.encoders.double:DoubleEncoder",
            options="ssl_dc.encoders.options:DoubleEncoderOptions",
            summary="A backbone for each route, gates in one only (2x).",
        ),
        Part(
            name="shared",
            target="ssl_dc.encoders.shared:SharedEncoder",
            options="ssl_dc.encoders.options:SharedEncoderOptions",
            summary="One backbone for both routes (1x, the paper's choice).",
        ),
    ]
