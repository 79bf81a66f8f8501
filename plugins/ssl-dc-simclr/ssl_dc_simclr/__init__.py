"""SimCLR's contrastive objective for ssl-dc."""

from __future__ import annotations

import ssl_dc

SSL_DC_INTERFACE = "2.0"


@ssl_dc.hookimpl
def ssl_dc_objectives() -> list[ssl_dc.Part]:
    """The objective ``simclr``."""
    return [
        ssl_dc.Part(
            name="simclr",
            target="ssl_dc_simclr.objective:SimCLR",
            options="ssl_dc_simclr.options:SimCLROptions",
            summary="Contrast of each pair of views with the whole batch, NT-Xent (Chen et al. 2020).",
        )
    ]
