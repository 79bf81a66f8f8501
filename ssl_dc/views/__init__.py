"""Augmentation: how the views of an image are drawn."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_views() -> list[Part]:
    """The built-in augmentation recipes."""
    return [
        Part(
            name="batched",
            target="ssl_dc.views.batched:BatchedStandardViews",
            options="ssl_dc.views.options:BatchedStandardViewsOptions",
            summary="The paper's recipe, on whole batches and on the device that trains.",
        ),
        Part(
            name="standard",
            target="ssl_dc.views.standard:StandardViews",
            options="ssl_dc.views.options:StandardViewsOptions",
            summary="Crop, colour jitter, grey, blur, solarisation, flip: the paper's recipe.",
        ),
    ]
