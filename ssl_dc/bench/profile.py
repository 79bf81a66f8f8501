"""Measures the time of each layer and gate in the executor, dense and gated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.gating.cost import CostModel
from ssl_dc.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUNDS = 5
"""How often each image is timed."""


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer for one image, in microseconds; 0 on a route that does not have the layer.

    Attributes:
        layer: The name of a convolution (with all that is folded into it), of the gate of a site, or of another operation.
        dense: Median on the dense route.
        gated: Mean over images of each image's median, on the gated route.
        share: MACs of the images as a share of the layer's dense MACs; None for a layer without dense MACs.
    """

    layer: str
    dense: float
    gated: float
    share: float | None


@dataclass(frozen=True)
class GateTime:
    """What one gate costs and saves for a single image, in microseconds.

    Attributes:
        site: Name of its site.
        cost: Time of its decision.
        saved: Time that the layers of the site take less than on the dense route. A layer of several sites counts for each
            of them in equal parts.
        in_torch: Whether the gate is called in torch, rather than decided by the kernel.
    """

    site: str
    cost: float
    saved: float
    in_torch: bool


@dataclass(frozen=True)
class Profile(Report):
    """The time of each layer and gate for single images.

    Attributes:
        layers: The layers in the order in which they run.
        gates: The gates in the order in which they decide.
        threads: CPU threads.
        images: Number of images that the gated times are a mean over.
    """

    layers: Sequence[LayerTime]
    gates: Sequence[GateTime]
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

    @property
    def losing_gates(self) -> list[GateTime]:
        """The gates that cost more time than they save."""
        return [gate for gate in self.gates if gate.cost > gate.saved]

    def as_json(self) -> dict[str, Any]:
        """The profile as plain values."""
        return {
            "threads": self.threads,
            "images": self.images,
            "dense_us": self.dense,
            "gated_us": self.gated,
            "layers": [vars(layer) for layer in self.layers],
            "gates": [vars(gate) for gate in self.gates],
        }

    def tables(self) -> Sequence[ReportTable]:
        """One row for each layer."""
        rows = []
        for layer in self.layers:
            ratio = f"{layer.gated / layer.dense:.3f}" if layer.dense else ""
            share = "" if layer.share is None else f"{layer.share:.3f}"
            rows.append((layer.layer, f"{layer.dense:.1f}", f"{layer.gated:.1f}", ratio, share))
        total = ("all", f"{self.dense:.1f}", f"{self.gated:.1f}", f"{self.gated / self.dense:.3f}", "")
        title = f"microseconds an image by the executor, batch 1, threads: {self.threads}"
        columns = ("layer", "dense", "gated", "gated / dense", "MACs, gated / dense")
        return [ReportTable(title, columns, rows, total, f"gated: mean over {self.images} held-out images")]

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
    """Time each step of both routes in the executor, one image at a time.

    Args:
        model: With gates, on the CPU.
        images: (n, 3, H, W).
        threads: How many threads work at once; by default as many as torch uses.

    Raises:
        RunError: If the model has no gates, or there is no compiled kernel; with the reason.
    """
    gated = model.compile_gated(threads=threads, backend="native")
    dense = model.compile_dense(threads=threads, backend="native")
    dense_times, gated_times = _times(dense, images[:1]), _times(gated, images)
    shares = _shares(model, gated, images)
    names = list(dict.fromkeys(_name(step) for step in gated.plan.steps))
    layers = [LayerTime(name, dense_times.get(name, 0.0), gated_times.get(name, 0.0), shares.get(name)) for name in names]
    return Profile(layers, _gate_times(gated, layers, model.cost), gated.threads, len(images))


def _gate_times(executor: Executor, layers: Sequence[LayerTime], cost: CostModel) -> list[GateTime]:
    costs = {layer.layer: layer.gated for layer in layers}
    saved = _saved(layers, cost)
    return [
        GateTime(step.site.name, costs[_name(step)], saved[step.site.name], step.rule is None)
        for step in executor.plan.steps
        if isinstance(step, Decide)
    ]


def _saved(layers: Sequence[LayerTime], cost: CostModel) -> dict[str, float]:
    """Microseconds that the layers of each site take less on the gated route."""
    times = {layer.layer: layer for layer in layers}
    saved = dict.fromkeys(cost.channels, 0.0)
    for layer in cost.layers:
        if layer.name in times:  # it is not if torch computes the layer within another step
            less = times[layer.name].dense - times[layer.name].gated
            for site in layer.sites:
                saved[site] += less / len(layer.sites)
    return saved


def _times(executor: Executor, images: Tensor) -> dict[str, float]:
    """Microseconds of each layer: the mean over images of the median over rounds."""
    executor(images[:1])
    rounds = torch.stack([torch.stack([executor.seconds_of_steps(image) for image in images]) for _ in range(ROUNDS)])
    seconds = rounds.median(dim=0).values.mean(dim=0)
    times: dict[str, float] = {}
    for step, value in zip(executor.plan.steps, seconds.tolist(), strict=True):
        times[_name(step)] = times.get(_name(step), 0.0) + 1e6 * value
    return times


def _shares(model: Model, executor: Executor, images: Tensor) -> Mapping[str, float]:
    """MACs of the images as a share of the dense MACs of each layer, mean over images."""
    masks = executor(images).masks
    return {layer.name: float(layer.open_share(masks).mean()) for layer in model.cost.layers if not layer.gate}


def _name(step: Step) -> str:
    """The name under which the time of a step is listed."""
    if isinstance(step, (Conv, Linear)):
        return step.layer
    return f"{step.site.name}.gate" if isinstance(step, Decide) else type(step).__name__.lower()
