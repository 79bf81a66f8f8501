"""Where the executor's time goes, layer by layer, dense and gated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.plan import Conv, Decide, Step
from ssl_dc.model import Model
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS = 5
"""How often each image is timed."""


@dataclass(frozen=True)
class LayerTime:
    """One layer's time for one image, in microseconds; 0 on a route that does not have it.

    Attributes:
        layer: A convolution's name with all that is folded into it, a site's gate, or what else is done.
        dense: Median on the dense route.
        gated: On the gated route, mean over images of each one's median.
        share: The share of the layer's dense MACs that the images cost; None for what has no MACs of the dense route.
    """

    layer: str
    dense: float
    gated: float
    share: float | None


@dataclass(frozen=True)
class Profile:
    """Where the time goes.

    Attributes:
        layers: In the order in which they run.
        threads: CPU threads.
        images: How many images the gated times are a mean over.
    """

    layers: list[LayerTime]
    threads: int
    images: int

    @property
    def dense(self) -> float:
        """Microseconds of the dense route."""
        return sum(layer.dense for layer in self.layers)

    @property
    def gated(self) -> float:
        """Microseconds of the gated route."""
        return sum(layer.gated for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """The profile as plain values."""
        return {
            "threads": self.threads,
            "images": self.images,
            "dense_us": self.dense,
            "gated_us": self.gated,
            "layers": [vars(layer) for layer in self.layers],
        }

    def draw(self) -> Figure:
        """A bar for each layer and route."""
        from matplotlib.figure import Figure

        places = range(len(self.layers))
        figure = Figure(figsize=(7, 0.24 * len(self.layers) + 1.2), layout="constrained")
        axes = figure.subplots()
        axes.barh([place - 0.2 for place in places], [layer.dense for layer in self.layers], height=0.4, label="dense")
        axes.barh([place + 0.2 for place in places], [layer.gated for layer in self.layers], height=0.4, label="gated")
        axes.set_yticks(list(places), [layer.layer for layer in self.layers], fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel(f"µs an image, batch 1, threads: {self.threads}")
        axes.set_title(f"executor: dense {self.dense:,.0f} µs, gated {self.gated:,.0f} µs", fontsize=10)
        axes.legend()
        return figure


def profile(model: Model, images: Tensor, *, threads: int | None = None) -> Profile:
    """Time each step of the executor's two routes, one image at a time.

    Args:
        model: With gates, on the CPU.
        images: (n, 3, H, W).
        threads: How many work at once; by default as many as torch uses.

    Raises:
        RunError: If the model has no gates, or the compiled kernel cannot be had.
    """
    gated = model.compile_gated(threads=threads, backend="native")
    dense = model.compile_dense(threads=threads, backend="native")
    times = {Route.DENSE: _times(dense, images[:1]), Route.GATED: _times(gated, images)}
    shares = _shares(model, gated, images)
    names = list(dict.fromkeys(_name(step) for step in gated.plan.steps if _name(step)))
    layers = [
        LayerTime(name, times[Route.DENSE].get(name, 0.0), times[Route.GATED].get(name, 0.0), shares.get(name))
        for name in names
    ]
    return Profile(layers, gated.threads, len(images))


def _times(executor: Executor, images: Tensor) -> dict[str, float]:
    """Microseconds of each layer, mean over images of the median over rounds."""
    executor(images[:1])
    rounds = torch.stack([torch.stack([executor.timed(image) for image in images]) for _ in range(ROUNDS)])
    seconds = rounds.median(dim=0).values.mean(dim=0)
    times: dict[str, float] = {}
    for step, value in zip(executor.plan.steps, seconds.tolist(), strict=True):
        times[_name(step)] = times.get(_name(step), 0.0) + 1e6 * value
    return times


def _shares(model: Model, executor: Executor, images: Tensor) -> Mapping[str, float]:
    """Of each layer the share of its dense MACs that images cost, mean over images."""
    masks = executor(images).masks
    return {
        layer.name: float(_product([masks[site].mean(dim=1) for site in layer.sites], len(images)).mean())
        for layer in model.cost.layers
        if not layer.gate
    }


def _product(shares: Sequence[Tensor], images: int) -> Tensor:
    product = torch.ones(images)
    for share in shares:
        product = product * share
    return product


def _name(step: Step) -> str:
    """What a step's time is listed under."""
    if isinstance(step, Conv):
        return step.layer
    return f"{step.site.name}.gate" if isinstance(step, Decide) else type(step).__name__.lower()
