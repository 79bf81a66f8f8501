"""A backbone for each route, without shared weights ("2x" in Table 4 of the paper)."""

from __future__ import annotations

from ssl_dc.backbones.base import Backbone
from ssl_dc.encoders.base import Encoder, MakeBackbone
from ssl_dc.encoders.options import DoubleEncoderOptions
from ssl_dc.gating.base import GatingScheme, no_gates
from ssl_dc.routes import Route


class DoubleEncoder(Encoder):
    """The encoder ``double``: one backbone with gates, one without, nothing shared.

    Args:
        options: There are none to choose.
        make_backbone: Builds a backbone. It is called twice.
        gating: Gives the gates of the first backbone.
    """

    def __init__(self, options: DoubleEncoderOptions, make_backbone: MakeBackbone, gating: GatingScheme) -> None:
        super().__init__()
        self.options = options
        self.gated = make_backbone(gating.make_gate)
        self.dense = make_backbone(no_gates)

    def backbone(self, route: Route) -> Backbone:
        """The backbone of a route."""
        return self.gated if route.gated else self.dense
