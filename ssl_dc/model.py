"""A trained encoder, ready to use: features of images by the dense or the gated route, and what they cost."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ssl_dc.assemble import build_encoder, build_network
from ssl_dc.config import RunConfig
from ssl_dc.data.inputs import Pictures, batches_of, transformed
from ssl_dc.errors import RunError
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.gating.base import check_budgets, gates_of, warn_beyond
from ssl_dc.gating.cost import CostModel, ImageSize, Trace, image_size_of
from ssl_dc.image_batches import check_images, not_finite, warn_not_finite
from ssl_dc.routes import ROUTE_NAMES, Route
from ssl_dc.views.pixels import evaluation_transform

if TYPE_CHECKING:
    from ssl_dc.backbones.base import Backbone
    from ssl_dc.compiled.executor import Executor
    from ssl_dc.encoders.base import Encoded, Encoder


class GatedFeatures(NamedTuple):
    """What the gated route gives.

    Attributes:
        features: (N, feature_dim), in the model's dtype.
        macs: What each image cost, (N,), in MACs: whole numbers in float64.
        ratio: The same as a share of the dense cost, (N,), above 0, in float32.
        masks: The mask (N, channels) of each gated site, in {0, 1}, by the site's name.
    """

    features: Tensor
    macs: Tensor
    ratio: Tensor
    masks: dict[str, Tensor]


class Model(nn.Module):
    """A trained encoder with its config and its cost.

    A model is a torch module. It moves (``model.to("cuda")``, ``model.to(torch.bfloat16)``), gives its ``parameters()`` and
    its ``state_dict()``, and can be copied and pickled. It is made in evaluation mode. :meth:`dense` and :meth:`gated` give
    features in evaluation mode, without a gradient, whatever mode the model is in. Calling the model itself is for further
    training: it gives features with a gradient, in the model's own mode.

    Images are float32, or of the model's own dtype if it was moved to another. They may be on any device. A
    :class:`RuntimeWarning` names images that hold NaN or infinity. Images on a GPU are not looked at for this, because the
    program would have to wait.

    Args:
        config: The config that the encoder was built from.
        encoder: The encoder; it is put in evaluation mode and in the memory format ``channels_last``.
        cost: What the encoder costs at the config's image size; it is counted if it is not given.

    Attributes:
        config: The config.
        encoder: The encoder.
        cost: The cost model, at the config's image size.
        trained_config: The config of the training. It differs from ``config`` where evaluations take another data set.
        transform: Turns a picture into what the network sees: float32 (3, image_size, image_size), normalised. It takes
            paths, PIL images of any mode, arrays and tensors (:func:`ssl_dc.data.inputs.picture_of`), and N of them in a
            list, which gives (N, 3, image_size, image_size). It holds nothing of the network, so that processes that
            prepare images can be sent it.
    """

    def __init__(self, config: RunConfig, encoder: Encoder, cost: CostModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.cost = encoder.cost_model(config.data.image_size) if cost is None else cost
        self.transform = partial(
            transformed, transform=evaluation_transform(config.data.image_size, config.data.mean, config.data.std)
        )
        self.gated_routes: tuple[Route, ...] = (Route.GATED,)
        self.trained_config = config
        self._costs: dict[ImageSize, CostModel] = {config.data.image_size: self.cost}
        self.to(memory_format=torch.channels_last)
        self.eval()

    @classmethod
    def untrained(cls, config: RunConfig, cost: CostModel | None = None) -> Model:
        """The model that training by a config starts from.

        Args:
            config: The config.
            cost: The cost model of the config's network, where it is known already.

        Raises:
            ConfigError: If the parts do not fit one another, or the budget cannot be met.
        """
        if cost is not None:  # then a network of this config was built and checked before
            return cls(config, build_encoder(config)[0], cost)
        network = build_network(config)
        return cls(config, network.encoder, network.cost)

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        return self.encoder.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the weights are, and features are computed."""
        return next(self.encoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What features are computed in."""
        return next(self.encoder.parameters()).dtype

    @property
    def has_gates(self) -> bool:
        """Whether there is a gated route."""
        return bool(gates_of(self.encoder.backbone(Route.GATED)))

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes that the model has: those that evaluations look at."""
        return (Route.DENSE, *self.gated_routes) if self.has_gates else (Route.DENSE,)

    @property
    def gated_route(self) -> Route:
        """The gated route that is meant where no budget is named."""
        return self.gated_routes[0]

    def at_budget(self, *budgets: float) -> Model:
        """The same model with its gated route at another budget, or with a gated route for each of several.

        The weights are shared. :meth:`gated`, :meth:`compile_gated`, evaluations, exports and measurements take the (first)
        budget where they are given none. Between the budgets of training thresholds are interpolated; outside them, those
        of the nearest one are taken, with a warning. :func:`ssl_dc.dialled` calibrates thresholds for any budget.

        Args:
            budgets: Shares of the dense cost in (0, 1], at least one.

        Raises:
            RunError: If the model has no gates.
            TypeError: If a budget is not a number.
            ValueError: If a budget is outside (0, 1], or none is given.
        """
        self._need_gates()
        if not budgets:
            raise ValueError("at_budget takes at least one budget")
        other = Model(self.config, self.encoder, self.cost)
        other.gated_routes = tuple(Route.at(budget) for budget in budgets)
        other.trained_config = self.trained_config
        self._warn_beyond(Route.at(budgets))
        return other

    def forward(self, images: Tensor, route: Route = Route.DENSE) -> Encoded:
        """Features and masks of images (N, 3, H, W) by a route, with a gradient, in the model's own mode.

        A gated route without a budget takes that of :meth:`at_budget`.

        Raises:
            RunError: If the route is gated and the model has no gates.
            TypeError: If the images are no tensor, or neither float32 nor of the model's dtype.
            ValueError: If they have another shape.
        """
        encoded = self._encoded(images, route)
        warn_not_finite(_visibly_not_finite(images), len(images), stacklevel=5)  # torch's own calls stand between
        return encoded

    def dense(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim) of images (N, 3, H, W) by the dense route; each image as :attr:`transform` gives it."""
        features = self._evaluated(images, Route.DENSE).features
        warn_not_finite(_visibly_not_finite(images), len(images), stacklevel=3)
        return features

    def gated(self, images: Tensor, budget: float | Sequence[float] | None = None) -> GatedFeatures:
        """Features and cost of images (N, 3, H, W) by the gated route; each image as :attr:`transform` gives it.

        Args:
            images: The images.
            budget: What they may cost, as a share of the dense cost in (0, 1]: one number, or one for each image. By
                default the budget of :meth:`at_budget`, or that which the model was trained for, or the usual one of
                several. The gates are calibrated at the budgets of training; between two of them the thresholds are
                interpolated. Outside them the thresholds of the nearest one are taken, and a
                :class:`ssl_dc.DialledWarning` says so; :func:`ssl_dc.dialled` calibrates others.

        Raises:
            RunError: If the model has no gates.
            TypeError: If a budget is not a number.
            ValueError: If a budget is outside (0, 1], or there are not as many as images.
        """
        route = self.gated_route if budget is None else Route.at(budget)
        check_budgets(route.budget, images)
        self._warn_beyond(route)
        features, masks = self._evaluated(images, route)
        warn_not_finite(_visibly_not_finite(images), len(images), stacklevel=3)
        trace = Trace(masks, self._cost_at(image_size_of(images)))
        return GatedFeatures(features, trace.macs(), trace.ratio(), masks)

    def features(self, pictures: Pictures, route: Route | str = Route.DENSE, *, batch_size: int = 64) -> Tensor:
        """Features (N, feature_dim) of pictures in any form, by a route; one picture gives (1, feature_dim).

        Args:
            pictures: A path, a PIL image, an array or a tensor, or a list of them (:func:`ssl_dc.data.inputs.pictures_of`).
                Of a folder the pictures are taken in the order of :func:`ssl_dc.pictures_in`. A float32 tensor
                (N, 3, H, W) is taken as :attr:`transform` gives it.
            route: The route, or its name, such as ``gated``, which takes the budget of :meth:`at_budget`.
            batch_size: Pictures that are computed at once.

        Raises:
            DataError: If a file cannot be read.
            RunError: If the route is gated and the model has no gates.
            TypeError: If something is no picture, or the route is neither a route nor a name.
            ValueError: If an array or tensor has the shape or the values of none, there are no pictures, or no such route.
        """
        way = self._meant(Route.parse(route) if isinstance(route, str) else route)
        self._warn_beyond(way)
        features: list[Tensor] = []
        faulty: list[int] = []
        done = 0
        for batch in batches_of(pictures, self.transform, batch_size):
            features.append(self._evaluated(batch, way).features)
            faulty += [done + number for number in _visibly_not_finite(batch)]
            done += len(batch)
        warn_not_finite(faulty, done, stacklevel=3)
        return torch.cat(features)

    def compile_gated(
        self,
        *,
        budget: float | None = None,
        threads: int | None = None,
        backend: str = "auto",
        precision: str = "float32",
        calibration: Tensor | None = None,
    ) -> Executor:
        """Compile the gated route for this machine's CPU: only what the masks keep is computed.

        ``compiled(images)`` gives features, masks, macs and ratio, equal to :meth:`gated` within float32 rounding;
        ``compiled(images, 0.25)`` does so at another budget, and compiles nothing again. Images are float32, on the CPU.
        The weights are copied, in float32, to the CPU; the model stays where it is.

        With ``precision="int8"`` the network multiplies bytes, which is faster and less exact: gates whose logits are
        near their thresholds decide differently, and the features of such images change. The ranges of weights
        and activations are measured on images, so this takes seconds, and up to minutes for large images. With
        ``precision="bf16"`` weights and values are rounded to bf16, and nothing is measured; some decisions
        differ, too. Without instructions for it that is slower than float32, and a
        :class:`ssl_dc.errors.SlowerWarning` says so.

        Args:
            budget: What images may cost where a call names no budget, as a share of the dense cost in (0, 1]. By default
                that of :meth:`gated`.
            threads: How many threads work at once; by default as many as torch uses.
            backend: ``native`` (compiled on first use by the machine's C compiler), ``torch`` (slower, float32 only), or
                ``auto``: native where that can be had.
            precision: ``float32``, ``bf16`` or ``int8``.
            calibration: For int8: training images (n, 3, H, W), each as :attr:`transform` gives it. By default 256 training
                images of the config's data set.

        Raises:
            DataError: If the config's data set is needed for int8 and cannot be opened.
            RunError: If the model has no gates, or cannot be compiled; with the reason.
            TypeError: If the calibration images are not such.
            ValueError: If there is no such precision or backend, the budget is not one number in (0, 1], or the calibration
                images are not such.
        """
        self._need_gates()
        if isinstance(budget, Sequence):
            raise ValueError(f"compile_gated takes one budget, not {budget}; a call takes one for each image")
        if budget is None:
            return self._compiled(self.gated_route, threads, backend, precision, calibration)
        route = Route.at(budget)
        self._warn_beyond(route)
        return self._compiled(route, threads, backend, precision, calibration)

    def compile_dense(
        self,
        *,
        threads: int | None = None,
        backend: str = "auto",
        precision: str = "float32",
        calibration: Tensor | None = None,
    ) -> Executor:
        """Compile the dense route for this machine's CPU; see :meth:`compile_gated`."""
        return self._compiled(Route.DENSE, threads, backend, precision, calibration)

    def __repr__(self) -> str:
        """What a user asks a model: its network, routes, size and cost."""
        config, backbone = self.config, self.config.backbone
        width = f", width {backbone.width}" if hasattr(backbone, "width") else ""
        budgets = ", ".join(f"{budget:g}" for budget in config.budget.budgets)
        gating = f" ({config.gating.name}, trained for budget {budgets})" if budgets else ""
        least = f", at least {self.cost.floor_macs:,} gated" if self.has_gates else ""
        lines = (
            f"network: {backbone.in_words()}{width}, {config.data.image_size} px, encoder {config.encoder.name}",
            f"routes: {', '.join(map(str, self.routes))}{gating}",
            f"parameters: {sum(p.numel() for p in self.parameters()):,}, {_short(self.dtype)} on {self.device}",
            f"MACs an image: {self.cost.dense_macs:,} dense{least}",
        )
        return "Model(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    @torch.no_grad()
    def _evaluated(self, images: Tensor, route: Route) -> Encoded:
        if not self.training:
            return self._encoded(images, route)
        with evaluation_mode(self):
            return self._encoded(images, route)

    def _encoded(self, images: Tensor, route: Route) -> Encoded:
        meant = self._meant(route)
        check_images(images, (torch.float32, self.dtype))
        encoded: Encoded = self.encoder(images.to(self.device, self.dtype), meant)
        return encoded

    def _meant(self, route: Route) -> Route:
        """The route, with the budget that is meant where it names none."""
        if not isinstance(route, Route):
            raise TypeError(f"a route is a ssl_dc.Route, or in features its name: {ROUTE_NAMES}; not {route!r}")
        if route.gated:
            self._need_gates()
        return self.gated_route if route == Route.GATED else route

    def _cost_at(self, size: ImageSize) -> CostModel:
        """The cost model at an image size, counted when it is first asked for."""
        if size not in self._costs:
            self._costs[size] = self.encoder.cost_model(size)
        return self._costs[size]

    def _compiled(
        self, route: Route, threads: int | None, backend: str, precision: str, calibration: Tensor | None
    ) -> Executor:
        from ssl_dc.compiled.backends import choose
        from ssl_dc.compiled.executor import compiled
        from ssl_dc.compiled.precisions import INT8

        choose(backend, precision)
        if precision != INT8 and calibration is not None:
            raise ValueError(f"calibration images are for int8; {precision} takes none")
        if precision == INT8 and calibration is None:
            from ssl_dc.training_images import INT8_IMAGES, training_images

            calibration = training_images(self.config, self.transform, INT8_IMAGES)
        if calibration is not None:
            check_images(calibration, (torch.float32, self.dtype))
            calibration = calibration.to("cpu", torch.float32)
        backbone = self._on_the_cpu(route)
        return compiled(backbone, route, threads=threads, backend=backend, precision=precision, calibration=calibration)

    def _on_the_cpu(self, route: Route) -> Backbone:
        """The backbone of a route in float32 on the CPU: itself if it is that already, else a copy."""
        backbone = self.encoder.backbone(route)
        if self.device.type == "cpu" and self.dtype is torch.float32:
            return backbone
        return copy.deepcopy(backbone).to("cpu", torch.float32)

    def _warn_beyond(self, route: Route) -> None:
        """Warn of budgets that the gates have no thresholds for."""
        warn_beyond(gates_of(self.encoder.backbone(route)), route.budget, stacklevel=4)

    def _need_gates(self) -> None:
        if not self.has_gates:
            raise RunError(f"this model has no gated route: it was trained with gating {self.config.gating.name!r}")


def _visibly_not_finite(images: Tensor) -> list[int]:
    """The numbers of the images that hold NaN or infinity, where it takes no waiting to see that: on the CPU."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return []
    try:
        return not_finite(images)
    except RuntimeError:  # torch traces, or maps over images, and there are no values to see
        return []


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
