"""Saliency top-k gating for ssl-dc."""

from __future__ import annotations

import ssl_dc

SSL_DC_INTERFACE = "2.0"


@ssl_dc.hookimpl
def ssl_dc_gatings() -> list[ssl_dc.Part]:
    """The gating scheme ``saliency``."""
    return [
        ssl_dc.Part(
            name="saliency",
            target="ssl_dc_saliency.scheme:Saliency",
            options="ssl_dc_saliency.options:SaliencyOptions",
            summary="The k most salient channels of each image, k from the budget (after FBS, Gao et al. 2019).",
        )
    ]
