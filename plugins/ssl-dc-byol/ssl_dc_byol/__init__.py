"""BYOL's objective for ssl-dc."""

from __future__ import annotations

import ssl_dc

SSL_DC_INTERFACE = "2.0"


@ssl_dc.hookimpl
def ssl_dc_objectives() -> list[ssl_dc.Part]:
    """The objective ``byol``."""
    return [
        ssl_dc.Part(
            name="byol",
            target="ssl_dc_byol.objective:BYOL",
            options="ssl_dc_byol.options:BYOLOptions",
            summary="Predicts what a momentum copy of the encoder makes of the other view (Grill et al. 2020).",
        )
    ]
