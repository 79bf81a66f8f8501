"""The networks of a run in the form in which they are exported."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.model import Model
from ssl_dc.routes import Route


def dense_network(model: Model) -> PlanNetwork:
    """The dense route with its norms folded: images (N, 3, H, W) to features (N, feature_dim)."""
    return PlanNetwork(fuse(capture(model.encoder.backbone(Route.DENSE), Route.DENSE))).eval()


class GatedNetwork(nn.Module):
    """The gated route with its masks: images (N, 3, H, W) to features, and the mask of each site in the order of the sites.

    It computes every channel and multiplies it by its mask, as training does. It shows what the gates decide; it saves no
    time.

    Args:
        model: A model with gates.

    Attributes:
        outputs: Names of the outputs: ``features``, and ``mask.SITE`` for each site.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.route = model.gated_route
        self.backbone = model.encoder.backbone(self.route)
        self.sites = [point.site.name for point in self.backbone.gate_points() if point.gate is not None]
        self.outputs = ["features", *(f"mask.{site}" for site in self.sites)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features (N, feature_dim) and masks (N, channels)."""
        features, masks = self.backbone(images, self.route)
        return (features, *(masks[site] for site in self.sites))
