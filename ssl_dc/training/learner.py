"""Everything that is trained, as one module. DDP wraps it, and a resume point saves it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

from torch import Tensor, nn

from ssl_dc.backbones.base import Masks
from ssl_dc.encoders.base import Encoded, Encoder
from ssl_dc.norms.running_statistics import kept_running_statistics
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

        Running statistics of batch norms are those of the global views, since evaluation sees images of their size. Local
        views add to them only on a route that no global view takes.

        Args:
            images: One tensor (N, 3, H, W) for each view, the global ones first.
            routes: The route of each view.
        """
        of_global = [route.gated for view, route in zip(images, routes, strict=True) if _same_size(view, images[0])]
        encoded: list[Encoded] = []
        for view, route in zip(images, routes, strict=True):
            kept = not _same_size(view, images[0]) and route.gated in of_global
            with kept_running_statistics(self.encoder) if kept else nullcontext():
                encoded.append(self.encoder(view, route))
        output = self.objective(EncodedViews(images, [view.features for view in encoded], routes))
        return LearnerOutput(output, [view.masks for view in encoded])


def _same_size(view: Tensor, other: Tensor) -> bool:
    return view.shape[2:] == other.shape[2:]
