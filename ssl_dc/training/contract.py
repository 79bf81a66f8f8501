"""What each part owes the training loop, checked while a step is taken.

The checks run in the first step of a training, also of a resumed one, and in the first step with other routes, since gates
may warm up. Later steps are not checked, and cost nothing. ``ssl-dc plugins check`` tests a part more thoroughly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_dc.backbones.base import Backbone
from ssl_dc.distributed import world_size
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import DataError, PluginError
from ssl_dc.evaluation_mode import evaluation_mode
from ssl_dc.gating.base import Gate, threshold_fault
from ssl_dc.gating.cost import CostModel
from ssl_dc.gating.counting import counted_macs
from ssl_dc.named_parts import NamedParts
from ssl_dc.norms.base import RouteNorm
from ssl_dc.objectives.base import EncodedViews, ObjectiveOutput, check_batch
from ssl_dc.routes import Route
from ssl_dc.training.batches import Batches
from ssl_dc.training.learner import Learner

ROUNDING = 0.01
"""How far an entry of a mask may be from 0 or 1 in training, where straight-through gradients round in bfloat16."""


def check_optimizer(parts: NamedParts, optimizer: object, learner: Learner) -> None:
    """Check that an optimiser can be used, and holds every trained parameter and no other.

    Raises:
        PluginError: If it is not so.
    """

    def breach(text: str) -> NoReturn:
        raise PluginError(f"{parts.name('optimizer', optimizer)}: {text}")

    if not isinstance(optimizer, Optimizer):
        breach(f"it must be a torch.optim.Optimizer, not a {type(optimizer).__name__}")
    trained = {id(p): name for name, p in learner.named_parameters() if p.requires_grad}
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missing := [name for key, name in trained.items() if key not in held]:
        breach(f"it leaves out {len(missing)} of the {len(trained)} trained parameters, such as {missing[0]}")
    if foreign := len(held - trained.keys()):
        breach(f"it holds {foreign} parameters that are not trained")
    if any("lr" not in group for group in optimizer.param_groups):
        breach("its parameter groups have no learning rate, 'lr', which the schedule sets")


class Contract:
    """Checks what the parts of a training give each other.

    Args:
        parts: What messages call the parts.
        learner: The encoder and the objective.
        cost: The encoder's cost model at the size of the first view.
        sizes: Side of each view, in pixels.
        routes: The route of each view, once gates are warm.
    """

    def __init__(
        self, parts: NamedParts, learner: Learner, cost: CostModel, sizes: Sequence[int], routes: Sequence[Route]
    ) -> None:
        self._parts, self._cost, self._sizes = parts, cost, sizes
        self._encoder, self._objective = learner.encoder, learner.objective
        self._views = len(routes)
        self._passed: set[tuple[bool, ...]] = set()
        self._active = False
        self._step = 0
        self._reached: set[int] = set()
        self._learning: set[int] = set()
        self._routes: Sequence[Route] = routes
        self._idle_terms: list[str] = []
        self._counted: set[Gate] = set()

    # batches

    def check_drawn(self, batches: Batches, step: int) -> None:
        """Check the first image that a run trains on from a step on (from 1), and its views.

        Raises:
            PluginError: If the data set gives no RGB image, or the recipe no view of the kind that is asked for.
        """
        self._step = step
        try:
            image = batches.first_image(step - 1)
        except DataError:
            return  # the run itself says so
        if image is None:
            return
        if not isinstance(image, Image.Image) or image.mode != "RGB":
            seen = f"one of mode {image.mode!r}" if isinstance(image, Image.Image) else _seen(image)
            self._breach("data", None, f"images must be PIL images of mode 'RGB', not {seen}")
        for size, view in zip(self._sizes, batches.first_views(step - 1), strict=False):
            shape = (3, size, size)
            if not isinstance(view, Tensor) or view.dtype is not torch.float32 or view.shape != shape:
                self._breach("views", None, f"a view must be float32 {shape}, not {_seen(view)}")

    def check_batch(self, batch: Any) -> None:
        """Check the views of the first batch.

        Raises:
            PluginError: If they are not as many tensors as there are routes, of the sizes that the trainer was told.
            ConfigError: If the objective needs more images at once.
        """
        name = self._parts.name("views") if self._parts.has("views") else "the loader"
        if not isinstance(batch, (list, tuple)) or len(batch) != self._views:
            self._fail(name, f"a batch must be {self._views} views, not {_seen(batch)}")
        for size, view in zip(self._sizes, batch, strict=True):
            fits = isinstance(view, Tensor) and view.is_floating_point() and view.shape[1:] == (3, size, size)
            if not fits or len(view) != len(batch[0]):
                self._fail(name, f"each view of a batch must be floats (N, 3, {size}, {size}), not {_seen(view)}")
        check_batch(self._objective, self._parts.name("objective"), world_size() * len(batch[0]))

    # a step

    @property
    def is_watching(self) -> bool:
        """Whether a step is being checked."""
        return self._active

    @contextmanager
    def watched(self, step: int, routes: tuple[Route, ...], images: Tensor) -> Iterator[None]:
        """Check a step that is taken here, unless one with the same views gated was checked before.

        Args:
            step: The number of the step, from 1.
            routes: The route of each view.
            images: A view (N, 3, H, W), where the network is.

        Raises:
            PluginError: If a part breaks its contract; the message names the part.
        """
        gated = tuple(route.gated for route in routes)
        if gated in self._passed:
            yield
            return
        self._step, self._active, self._routes = step, True, routes
        self._reached, self._learning = set(), set()
        if not self._passed:
            self._check_cost(images[:1])
        with ExitStack() as hooks:
            for handle in self._hooks():
                hooks.callback(handle.remove)
            yield
        self._active = False
        self._passed.add(gated)

    def check_losses(self, terms: Any) -> None:
        """Check the loss terms of the gating scheme, in a step that is checked."""
        if not self._active:
            return
        if not isinstance(terms, Mapping):
            self._breach("gating", None, f"losses must be a dict of terms, not {_seen(terms)}")
        for name, term in terms.items():
            self._check_term("gating", name, term)
            if name in self._objective.weights:
                self._breach("gating", None, f"its loss term {name!r} has the name of one of the objective's terms")

    def check_gradients(self) -> None:
        """Check where the gradients of a step arrived, in a step that is checked; before the optimiser takes them."""
        if not self._active:
            return
        trained = self._objective.trained_views
        numbers = range(self._views) if trained is None else trained
        for number in numbers:
            if number in self._learning and number not in self._reached:
                idle = ", ".join(map(repr, self._idle_terms))
                lacks = f"; its terms without a gradient: {idle}" if idle else ""
                view = f"the {_ordinal(number)} view ({self._routes[number]} route)"
                self._breach("objective", None, f"no gradient of its loss reaches the features of {view}{lacks}")
        own = [p for p in self._objective.parameters() if p.requires_grad]
        if own and all(p.grad is None for p in own):
            self._breach("objective", None, "no gradient of its loss reaches any of its own parameters")

    # what the parts give

    def _hooks(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Look at what each part gives, as soon as it gives it."""
        backbones = {self._encoder.backbone(route) for route in Route.BOTH}
        for backbone in backbones:
            yield backbone.register_forward_hook(self._after_backbone, with_kwargs=True)
        for point in (point for backbone in backbones for point in backbone.gate_points()):
            if point.gate is not None:
                yield point.gate.register_forward_hook(self._after_gate(point.site.name, point.site.channels))
        for module in self._encoder.modules():
            if isinstance(module, RouteNorm):
                yield module.register_forward_hook(self._after_norm)
        yield self._encoder.register_forward_hook(self._after_encoder)
        yield self._objective.register_forward_pre_hook(self._before_objective)
        yield self._objective.register_forward_hook(self._after_objective)

    def _after_norm(self, norm: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.shape != inputs[0].shape:
            self._breach("norm", norm, f"it must give {tuple(inputs[0].shape)} as it is given, not {_seen(output)}")

    def _after_gate(self, site: str, channels: int) -> Any:
        def check(gate: Gate, inputs: tuple[Any, ...], mask: Any) -> None:
            shape = (len(inputs[0]), channels)
            if not isinstance(mask, Tensor) or not mask.is_floating_point() or mask.shape != shape:
                self._breach("gating", gate, f"the mask at {site} must be floats {shape}, not {_seen(mask)}")
            self._check_binary("gating", gate, f"the mask at {site}", mask)
            learns = gate.training and torch.is_grad_enabled() and any(p.requires_grad for p in gate.parameters())
            if learns and not mask.requires_grad:
                self._breach("gating", gate, f"the mask at {site} has no gradient, so its gate cannot learn")
            self._check_gate_macs(site, gate, inputs)

        return check

    def _after_backbone(self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not isinstance(backbone, Backbone):
            return
        images, route = [*args, *kwargs.values()][:2]
        if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[1], Mapping):
            self._breach("backbone", backbone, f"it must give features and a dict of masks, not {_seen(output)}")
        features, masks = output
        self._check_features("backbone", backbone, features, len(images), backbone.feature_dim)
        points = [point for point in backbone.gate_points() if point.gate is not None and route.gated]
        expected = {point.site.name: (len(images), point.site.channels) for point in points}
        seen = {site: tuple(mask.shape) if isinstance(mask, Tensor) else () for site, mask in masks.items()}
        for site in expected.keys() - seen.keys():
            self._breach("backbone", backbone, f"the {route} route gives no mask of the gate at {site}")
        for site, shape in seen.items():
            if site not in expected:
                self._breach("backbone", backbone, f"the {route} route gives a mask of {site!r}, where it runs no gate")
            if shape != expected[site]:
                self._breach("backbone", backbone, f"the mask of {site} must be {expected[site]}, not {_seen(masks[site])}")
            self._check_binary("backbone", backbone, f"the mask of {site}", masks[site])

    def _after_encoder(self, encoder: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, tuple) or len(output) != 2 or not isinstance(output[1], Mapping):
            self._breach("encoder", encoder, f"it must give features and a dict of masks, not {_seen(output)}")
        self._check_features("encoder", encoder, output[0], len(inputs[0]), self._encoder.feature_dim)

    def _before_objective(self, objective: nn.Module, inputs: tuple[EncodedViews, ...]) -> None:
        """Note which features the loss can reach, and see whether it does."""
        (views,) = inputs
        trained = self._objective.trained_views
        if trained is not None and not (trained and set(trained) <= set(range(self._views))):
            self._breach("objective", objective, f"trained_views must be from 0 to {self._views - 1}, not {trained!r}")
        for number, (features, route) in enumerate(zip(views.features, views.routes, strict=True)):
            backbone = self._encoder.backbone(route)
            if not any(p.requires_grad for p in backbone.parameters()):
                continue
            if not features.requires_grad:
                self._breach("backbone", backbone, f"the features of the {route} route have no gradient")
            self._learning.add(number)
            features.register_hook(lambda _gradient, number=number: self._reached.add(number))

    def _after_objective(self, objective: nn.Module, inputs: tuple[EncodedViews, ...], output: Any) -> None:
        if not isinstance(output, ObjectiveOutput) or not isinstance(output.terms, Mapping):
            self._breach("objective", objective, f"it must give an ssl_dc.ObjectiveOutput, not {_seen(output)}")
        self._check_weights()
        terms, weights = output.terms, self._objective.weights
        if missing := [name for name in weights if name not in terms]:
            self._breach("objective", objective, f"weights name the term {missing[0]!r}, which forward does not give")
        for name, term in terms.items():
            if name not in weights:
                self._breach("objective", objective, f"forward gives the term {name!r}, which has no weight in weights")
            self._check_term("objective", name, term)
        self._idle_terms = [name for name, term in terms.items() if not term.requires_grad]
        if len(self._idle_terms) == len(terms):
            self._breach("objective", objective, "none of its loss terms has a gradient, so nothing can learn from it")
        self._check_embeddings(output.embeddings, len(inputs[0].images[0]))

    def _check_weights(self) -> None:
        weights: Any = self._objective.weights
        if not isinstance(weights, Mapping) or not weights:
            self._breach("objective", None, f"weights must be a dict with a number for each term, not {_seen(weights)}")
        for name, weight in weights.items():
            if not isinstance(weight, (int, float)) or not math.isfinite(weight):
                self._breach("objective", None, f"the weight of {name!r} must be a finite number, not {weight!r}")

    def _check_embeddings(self, embeddings: Any, rows: int) -> None:
        """Embeddings may be of this process's images, or of the global batch."""
        fits = isinstance(embeddings, (list, tuple)) and len(embeddings) == self._views
        if not fits or any(not isinstance(z, Tensor) or z.ndim != 2 or len(z) % rows for z in embeddings):
            seen = ", ".join(map(_seen, embeddings)) if isinstance(embeddings, (list, tuple)) else _seen(embeddings)
            wanted = f"embeddings must be {self._views} tensors ({rows}, D), one for each view"
            self._breach("objective", None, f"{wanted}, not {seen or 'nothing'}")

    def _check_term(self, kind: str, name: object, term: Any) -> None:
        if not isinstance(term, Tensor) or not term.is_floating_point() or term.ndim:
            self._breach(kind, None, f"the loss term {name!r} must be a scalar of floats, not {_seen(term)}")

    def _check_features(self, kind: str, part: object, features: Any, rows: int, width: Any) -> None:
        if not isinstance(features, Tensor) or not features.is_floating_point() or features.shape != (rows, width):
            self._breach(kind, part, f"features must be floats ({rows}, {width}), by feature_dim, not {_seen(features)}")

    def _check_binary(self, kind: str, part: object, what: str, mask: Tensor) -> None:
        near = (mask.detach().abs() <= ROUNDING) | ((mask.detach() - 1).abs() <= ROUNDING)
        if not bool(near.all()):
            self._breach(kind, part, f"{what} must be 0 or 1, and has the value {mask[~near][0].item():.4g}")

    # the declared cost

    @torch.no_grad()
    def _check_cost(self, image: Tensor) -> None:
        """Hold the cost model to what the dense route of its network runs for an image (1, 3, H, W)."""
        backbone = self._encoder.backbone(Route.GATED)
        ours = type(self._encoder).cost_model is Encoder.cost_model
        kind, part = ("backbone", backbone) if ours else ("encoder", self._encoder)
        with evaluation_mode(backbone), _kept_random_state(image):
            counted = counted_macs(backbone.forward, image, Route.DENSE)
        declared = self._cost.dense_macs
        if declared != counted:
            self._breach(
                kind, part, f"cost_model says that the dense route costs {declared:,} MACs, and torch counts {counted:,}"
            )
        for gap in self._cost.gaps(point.site for point in backbone.gate_points() if point.gate is not None):
            self._breach(kind, part, gap)

    def _check_gate_macs(self, site: str, gate: Gate, inputs: tuple[Any, ...]) -> None:
        """Hold the ``macs`` of a gate to what it runs for one image."""
        if gate in self._counted:
            return
        self._counted.add(gate)
        x, *thresholds = inputs
        rows = [each[:1] if each.ndim == 2 else each for each in thresholds]
        with evaluation_mode(gate), _kept_random_state(x):
            counted = counted_macs(gate.forward, x[:1].detach(), *rows)
            fault = threshold_fault(gate, x.detach())
        if not isinstance(gate.macs, int) or gate.macs < counted:
            self._breach("gating", gate, f"the gate at {site} says macs = {gate.macs!r}, and torch counts {counted:,}")
        if fault:
            self._breach("gating", gate, f"the gate at {site} {fault}")

    def _breach(self, kind: str, part: object, text: str) -> NoReturn:
        self._fail(self._parts.name(kind, part), text)

    def _fail(self, name: str, text: str) -> NoReturn:
        raise PluginError(f"step {self._step}: {name}: {text}")


@contextmanager
def _kept_random_state(images: Tensor) -> Iterator[None]:
    """Leave the random generators as they are, whatever draws from them here."""
    devices: Iterable[torch.device] = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _ordinal(number: int) -> str:
    """A number from 0 as people count: first, second."""
    first = ("first", "second", "third", "fourth")
    return first[number] if number < len(first) else f"{number + 1}th"


def _seen(value: Any) -> str:
    """A value that is not what it should be, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"an instance of {type(value).__name__}"
