"""Self-supervised objectives, one file each."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_objectives() -> list[Part]:
    """The built-in objectives."""
    return [
        Part(
            name="barlow_twins",
            target="ssl_dc.objectives.barlow_twins:BarlowTwins",
            options="ssl_dc.objectives.options:BarlowTwinsOptions",
            summary="Redundancy reduction by cross-correlation (Zbontar et al. 2021).",
        ),
        Part(
            name="vicreg",
            target="ssl_dc.objectives.vicreg:VICReg",
            options="ssl_dc.objectives.options:VICRegOptions",
            summary="Variance, invariance and covariance regularisation (Bardes et al. 2022).",
        ),
    ]
