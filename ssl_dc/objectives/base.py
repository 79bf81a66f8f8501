"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from ssl_dc.routes import Route

if TYPE_CHECKING:
    from ssl_dc.encoders.base import Encoder


class EncodedViews(NamedTuple):
    """The views of one batch, and what the encoder made of them.

    Attributes:
        images: One tensor (N, 3, H, W) a view.
        features: One tensor (N, feature_dim) a view, in the same order.
        routes: The route each view took.
    """

    images: Sequence[Tensor]
    features: Sequence[Tensor]
    routes: Sequence[Route]


class ObjectiveOutput(NamedTuple):
    """What an objective makes of the views.

    Attributes:
        terms: The named loss terms, scalars in float32, without their weights.
        embeddings: One tensor (N, D) a view: what the terms were computed on, watched for collapse.
    """

    terms: dict[str, Tensor]
    embeddings: Sequence[Tensor]


class Objective(nn.Module, ABC):
    """A self-supervised objective with its heads.

    It sees features, never gates. The loss of a step is the sum of ``weights[name] * terms[name]``. Terms are computed in
    float32 whatever the precision of the features, and over the global batch when several processes train together.

    Attributes:
        trained_views: Numbers of the views whose features get a gradient. One that is a target only, as in an asymmetric
            objective that is not symmetrised, is left out; the encoder then learns nothing from that view's route.
    """

    trained_views: Sequence[int] = (0, 1)

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """The weight of each named term."""

    @abstractmethod
    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        """The loss terms of one batch."""

    def bind(self, encoder: Encoder) -> None:
        """Called once, before training, with the encoder that is to be trained; for objectives that keep a copy of it.

        A copy kept as a submodule is saved and restored with the objective, also when training goes on from a resume point;
        its parameters must not require a gradient, or the optimiser is given them.
        """

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Called after each optimiser step, with the share of training done, in [0, 1]; for momentum copies."""
