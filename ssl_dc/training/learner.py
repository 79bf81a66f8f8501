"""Everything that is trained, as one module. DDP wraps it, and a resume point saves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ssl_dc.backbones.base import Masks
from ssl_dc.encoders.base import Encoder
from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.routes import Route


class LearnerOutput(NamedTuple):
    """The results of one batch.

    Attributes:
        objective: Loss terms and embeddings.
        masks: For each view the masks of its gated sites. A dense view has none.
    """

    objective: ObjectiveOutput
    masks: list[Masks]


class Learner(nn.Module):
    """An encoder and an objective.

    Args:
        encoder: Gives features and masks.
        objective: Gives the loss terms.
    """

    def __init__(self, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective

    def forward(self, images: Sequence[Tensor], routes: Sequence[Route]) -> LearnerOutput:
        """Terms and masks of the views.

        Args:
            images: One tensor (N, 3, H, W) for each view.
            routes: The route of each view.
        """
        encoded = [self.encoder(view, route) for view, route in zip(images, routes, strict=True)]
        output = self.objective(EncodedViews(images, [view.features for view in encoded], routes))
        return LearnerOutput(output, [view.masks for view in encoded])
