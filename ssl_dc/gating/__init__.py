"""Gate sites, masks and their cost; one file a gating scheme; the budget."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_gatings() -> list[Part]:
    """The built-in gating schemes."""
    return [
        Part(
            name="convnet_aig",
            target="ssl_dc.gating.convnet_aig:ConvNetAIG",
            options="ssl_dc.gating.options:ConvNetAIGOptions",
            summary="Per-image gates of whole residual branches (ConvNet-AIG, Veit and Belongie 2018).",
        ),
        Part(
            name="prefix",
            target="ssl_dc.gating.prefix:PrefixGating",
            options="ssl_dc.gating.options:PrefixGatingOptions",
            summary="The first channels, the same for all images: a control.",
        ),
        Part(
            name="random",
            target="ssl_dc.gating.random:RandomGating",
            options="ssl_dc.gating.options:RandomGatingOptions",
            summary="As many channels, drawn anew for each image: a control.",
        ),
        Part(
            name="none",
            target="ssl_dc.gating.none:NoGating",
            options="ssl_dc.gating.options:NoGatingOptions",
            summary="No gates: the dense baseline.",
        ),
        Part(
            name="dgnet",
            target="ssl_dc.gating.dgnet:DGNet",
            options="ssl_dc.gating.options:DGNetOptions",
            summary="Per-image channel gates inside each residual block (DGNet, Li et al. 2021).",
        ),
        Part(
            name="dgnet_spatial",
            target="ssl_dc.gating.dgnet_spatial:DGNetSpatial",
            options="ssl_dc.gating.options:DGNetSpatialOptions",
            summary="Per-image gates of positions, the cells of a grid, in each residual block (DGNet).",
        ),
        Part(
            name="dgnet_dual",
            target="ssl_dc.gating.dgnet_dual:DGNetDual",
            options="ssl_dc.gating.options:DGNetDualOptions",
            summary="Per-image gates of channels and of positions in each residual block (DGNet's dual gating).",
        ),
    ]
