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
from ssl_dc.training.distillation import with_gradient_share


class LearnerOutput(NamedTuple):
    """The results of one batch.

    Attributes:
        objective: Loss terms and embeddings.
        masks: For each view the masks of its gated sites. A dense view has none.
        distilled: Gated and dense features (N, d) of each gated view, where the gated route learns from the dense one.
    """

    objective: ObjectiveOutput
    masks: list[Masks]
    distilled: list[tuple[Tensor, Tensor]]


class Learner(nn.Module):
    """An encoder and an objective.

    Args:
        encoder: Gives features and masks.
        objective: Gives the loss terms.
        distils: Whether gated views also take the dense route. The objective then sees their dense features, and their
            gated ones are to learn from these.
        gated_gradient: Share in [0, 1] of the objective's gradient that passes through the features of gated views.
    """

    def __init__(
        self, encoder: Encoder, objective: Objective, *, distils: bool = False, gated_gradient: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.objective = objective
        self.distils, self.gated_gradient = distils, gated_gradient

    def forward(self, images: Sequence[Tensor], routes: Sequence[Route]) -> LearnerOutput:
        """Terms and masks of the views.

        Running statistics of batch norms are those of the global views, since evaluation sees images of their size. Local
        views add to them only on a route that no global view takes.

        Args:
            images: One tensor (N, 3, H, W) for each view, the global ones first.
            routes: The route of each view.
        """
        views = list(zip(images, routes, strict=True))
        taught = [(view, Route.DENSE) for view, route in views if route.gated] if self.distils else []
        of_global = {route.gated for view, route in views + taught if _same_size(view, images[0])}
        passed: list[Encoded] = []
        for view, route in views + taught:
            kept = not _same_size(view, images[0]) and route.gated in of_global
            with kept_running_statistics(self.encoder) if kept else nullcontext():
                passed.append(self.encoder(view, route))
        encoded, teachers = passed[: len(views)], iter(passed[len(views) :])
        features, distilled = [], []
        for own, route in zip(encoded, routes, strict=True):
            if route.gated and self.distils:
                features.append(next(teachers).features)
                distilled.append((own.features, features[-1].detach()))
            else:
                features.append(with_gradient_share(own.features, self.gated_gradient if route.gated else 1.0))
        seen = [Route.DENSE] * len(routes) if self.distils else routes
        output = self.objective(EncodedViews(images, features, seen))
        return LearnerOutput(output, [view.masks for view in encoded], distilled)


def _same_size(view: Tensor, other: Tensor) -> bool:
    return view.shape[2:] == other.shape[2:]
