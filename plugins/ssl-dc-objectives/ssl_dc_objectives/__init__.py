"""Five objectives for ssl-dc, one file each."""

from __future__ import annotations

import ssl_dc

SSL_DC_INTERFACE = "2.0"

_SUMMARIES = {
    "DINO": "Learns the soft classes of a momentum teacher, centred and sharpened (Caron et al. 2021).",
    "SIGReg": "Draws views together, and their distribution to a Gaussian: LeJEPA (Balestriero and LeCun 2025).",
    "SimSiam": "Predicts the other view, with a stop-gradient in place of a teacher (Chen and He 2021).",
    "VISReg": "Draws views together, and scale and shape of their distribution to a Gaussian (Wu et al. 2026).",
    "WMSE": "Draws whitened views together, W-MSE (Ermolov et al. 2021).",
}
"""What each class does."""


@ssl_dc.hookimpl
def ssl_dc_objectives() -> list[ssl_dc.Part]:
    """The objectives ``dino``, ``sigreg``, ``simsiam``, ``visreg`` and ``wmse``."""
    return [
        ssl_dc.Part(
            name=cls.lower(),
            target=f"ssl_dc_objectives.{cls.lower()}:{cls}",
            options=f"ssl_dc_objectives.options:{cls}Options",
            summary=summary,
        )
        for cls, summary in _SUMMARIES.items()
    ]
