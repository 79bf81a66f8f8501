"""The networks of timm as backbones of ssl-dc."""

from __future__ import annotations

import ssl_dc

SSL_DC_INTERFACE = "2.0"


@ssl_dc.hookimpl
def ssl_dc_backbones() -> list[ssl_dc.Part]:
    """The backbone ``timm``."""
    return [
        ssl_dc.Part(
            name="timm",
            target="ssl_dc_timm.backbone:Timm",
            options="ssl_dc_timm.options:TimmOptions",
            summary="Any network of timm whose cost can be counted, with gate sites where they are found.",
        )
    ]
