"""One backbone for both routes: the paper's encoder ("1x" in its Table 4)."""

from __future__ import annotations

from ssl_dc.backbones.base import Backbone
from ssl_dc.encoders.base import Encoder, MakeBackbone
from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.gating.base import GatingScheme
from ssl_dc.routes import Route


class SharedEncoder(Encoder):
    """The encoder ``shared``: one set of weights for every route.

    Args:
        options: There are none to choose.
        make_backbone: Builds the backbone.
        gating: Gives its gates.
    """

    def __init__(self, options: SharedEncoderOptions, make_backbone: MakeBackbone, gating: GatingScheme) -> None:
        super().__init__()
        self.options = options
        self.both = make_backbone(gating.make_gate)

    def backbone(self, route: Route) -> Backbone:  # noqa: ARG002  # the point of this encoder
        """The one backbone."""
        return self.both
