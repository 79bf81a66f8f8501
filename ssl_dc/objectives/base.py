"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor, nn

from ssl_dc.errors import ConfigError
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from ssl_dc.encoders.base import Encoder


class EncodedViews(NamedTuple):
    """The views of one batch, and their features.

    Attributes:
        images: One tensor (N, 3, H, W) for each view. Local views are smaller than the global ones, which come first.
        features: One tensor (N, feature_dim) for each view, in the same order.
        routes: The route of each view.
    """

    images: Sequence[Tensor]
    features: Sequence[Tensor]
    routes: Sequence[Route]

    @property
    def global_count(self) -> int:
        """How many of the views, the first ones, are global. The others are local: small crops."""
        return sum(view.shape[2:] == self.images[0].shape[2:] for view in self.images)


class ObjectiveOutput(NamedTuple):
    """The loss terms of the views, and their embeddings.

    Attributes:
        terms: The named loss terms, scalars in float32, without their weights.
        embeddings: One tensor (N, D) for each view: what the terms are computed on. Training watches them for collapse.
    """

    terms: dict[str, Tensor]
    embeddings: Sequence[Tensor]


class Objective(nn.Module, ABC):
    """A self-supervised objective with its heads.

    An objective sees features, never gates. The loss of a step is the sum of ``weights[name] * terms[name]``. Terms are
    computed in float32 whatever the precision of the features, and over the global batch when several processes train
    together.

    Attributes:
        views: How many views the objective takes. None means any number from 2.
        trained_views: Numbers of the views whose features get a gradient, from 0. None means all of them. A view that is
            only a target, as in an asymmetric objective, is left out: the encoder learns nothing from its route.
        least_batch: Images that all processes together must take at once. A smaller batch is refused before the first step.
    """

    views: ClassVar[int | None] = 2
    trained_views: Sequence[int] | None = None
    least_batch: int = 2

    @property
    @abstractmethod
    def weights(self) -> Mapping[str, float]:
        """The weight of each named term."""

    @abstractmethod
    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        """The loss terms of one batch."""

    def bind(self, encoder: Encoder) -> None:
        """Called once before training, with the encoder that will be trained. An objective may copy it here.

        A copy that is a submodule is saved and restored with the objective, also at resume points. Its parameters must not
        require a gradient, or the optimiser trains them.
        """

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Called after each optimiser step. A momentum copy is updated here.

        Args:
            encoder: The encoder that is trained.
            progress: The share of training done, in [0, 1].
        """


def check_views(objective: Objective | type[Objective], name: str, routes: Sequence[Route]) -> None:
    """Check that an objective takes as many views as there are routes.

    Args:
        objective: The objective, or its class.
        name: What the message calls it.
        routes: The route of each view.

    Raises:
        ConfigError: If it takes another number of views.
    """
    if objective.views not in (None, len(routes)):
        written = ",".join(map(str, routes))
        raise ConfigError(f"routes {written}: {name} takes {objective.views} views, not {len(routes)}")


def check_batch(objective: Objective, name: str, images: int) -> None:
    """Check that all processes together take as many images at once as an objective needs.

    Args:
        objective: The objective.
        name: What the message calls it.
        images: How many there are.

    Raises:
        ConfigError: If it needs more.
    """
    if images < objective.least_batch:
        raise ConfigError(
            f"{name} takes {objective.least_batch} images or more at once, and gets {images}: raise training.batch_size, or"
            " see whether an option of the objective lets it take fewer (ssl-dc plugins show NAME)"
        )
