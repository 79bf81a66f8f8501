"""A trained encoder, ready to use: features of images, dense or gated, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ssl_dc.assemble import build_network
from ssl_dc.config import RunConfig
from ssl_dc.errors import RunError
from ssl_dc.gating.base import gates_of
from ssl_dc.gating.cost import Trace
from ssl_dc.routes import Route
from ssl_dc.views.pixels import evaluation_transform

if TYPE_CHECKING:
    from PIL.Image import Image

    from ssl_dc.compiled.executor import Executor
    from ssl_dc.encoders.base import Encoder


class GatedFeatures(NamedTuple):
    """What the gated route gives.

    Attributes:
        features: (N, feature_dim).
        macs: What each image cost, (N,), in MACs.
        ratio: The same as a share of the dense cost, (N,), in (0, 1].
        masks: For each gated site the mask (N, channels), in {0, 1}.
    """

    features: Tensor
    macs: Tensor
    ratio: Tensor
    masks: dict[str, Tensor]


class Model:
    """An encoder in evaluation mode.

    Args:
        config: The config it was built from.
        encoder: The encoder; put in evaluation mode.

    Attributes:
        cost: The cost model, at the image size of the config.
    """

    def __init__(self, config: RunConfig, encoder: Encoder) -> None:
        self.config = config
        self.encoder = encoder.eval()
        self.encoder.to(memory_format=torch.channels_last)
        self.cost = encoder.cost_model(config.data.image_size)
        self._transform = evaluation_transform(config.data.image_size, config.data.mean, config.data.std)

    @classmethod
    def untrained(cls, config: RunConfig) -> Model:
        """The model that training by this config starts from."""
        return cls(config, build_network(config).encoder)

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self.encoder.feature_dim

    @property
    def has_gates(self) -> bool:
        """Whether there is a gated route."""
        return bool(gates_of(self.encoder.backbone(Route.GATED)))

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes that the model has."""
        return (Route.DENSE, Route.GATED) if self.has_gates else (Route.DENSE,)

    def transform(self, image: Image) -> Tensor:
        """An RGB image as the network sees it: float32 (3, image_size, image_size), normalised."""
        return self._transform(image)

    @torch.no_grad()
    def dense(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim) of images (N, 3, H, W), each as :meth:`transform` gives it, by the dense route."""
        features: Tensor = self.encoder(_checked(images), Route.DENSE).features
        return features

    @torch.no_grad()
    def gated(self, images: Tensor) -> GatedFeatures:
        """Features and cost of images (N, 3, H, W), each as :meth:`transform` gives it, by the gated route.

        Raises:
            RunError: If the model has no gates.
        """
        self._need_gates()
        features, masks = self.encoder(_checked(images), Route.GATED)
        size = images.shape[-1]
        cost = self.cost if size == self.config.data.image_size else self.encoder.cost_model(size)
        trace = Trace(masks, cost)
        return GatedFeatures(features, trace.macs(), trace.ratio(), masks)

    def compile_gated(self, *, threads: int | None = None, backend: str = "auto") -> Executor:
        """The gated route compiled for this CPU: only what the masks keep is computed.

        ``compiled(images)`` gives features, masks, macs and ratio, equal to :meth:`gated` within float32 rounding.

        Args:
            threads: How many work at once; by default as many as torch uses.
            backend: ``native`` (compiled on first use by the machine's C compiler), ``torch`` (slower), or ``auto``: native
                where that can be had.

        Raises:
            RunError: If the model has no gates, or cannot be compiled; with the reason.
        """
        self._need_gates()
        return self._compiled(Route.GATED, threads, backend)

    def compile_dense(self, *, threads: int | None = None, backend: str = "auto") -> Executor:
        """The dense route compiled for this CPU; see :meth:`compile_gated`."""
        return self._compiled(Route.DENSE, threads, backend)

    def _compiled(self, route: Route, threads: int | None, backend: str) -> Executor:
        from ssl_dc.compiled.executor import compiled

        return compiled(self.encoder.backbone(route), route, threads=threads, backend=backend)

    def _need_gates(self) -> None:
        if not self.has_gates:
            raise RunError(f"this model has no gated route: it was trained with gating {self.config.gating.name!r}")


def _checked(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a tensor of floats (N, 3, H, H), each as Model.transform gives it, not {given}")
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must have the shape (N, 3, H, H), not {tuple(images.shape)}")
    return images
