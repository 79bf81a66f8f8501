"""Compares what a kernel gives with the network in float64, or with the statements of bf16 and int8."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import ssl_dc
from ssl_dc.backbones.base import GatePoint
from ssl_dc.compiled.bf16_plan import Bf16Plan
from ssl_dc.compiled.int8_plan import Int8Plan
from ssl_dc.compiled.plan import Plan
from ssl_dc.routes import Route
from tests.helpers import int8_network
from tests.helpers.bf16_network import Bf16Run

WORST_ERROR = 1e-5
"""Of a feature in float32, as a share of the largest feature of the batch."""
ROUNDED = 0.01
"""Relative error of features in bf16 where values may be rounded to neighbours of the right ones."""
OTHER_DECISIONS = 0.5
"""The same where decisions differ for that reason."""
CLOSE = 1e-5
"""A decision in float32 may differ if its logit is this close to the threshold, as a share of the logit's terms."""


class Reference:
    """A network in float64, with how close each of its decisions is.

    Args:
        encoder: The network. It is in float64 afterwards, with all parts that a plan shares with it.
        route: Its route.
        images: (N, 3, H, W).

    Attributes:
        features: (N, feature_dim).
        masks: For each site (N, channels) bool.
        margins: For each site (N, channels): distance of the logits from the threshold, as shares of the logits' terms.
    """

    @torch.no_grad()
    def __init__(self, encoder: ssl_dc.Encoder, route: Route, images: Tensor) -> None:
        backbone = encoder.double().backbone(route)
        self.margins: dict[str, Tensor] = {}
        for point in backbone.gate_points():
            point.register_forward_hook(self._look)
        features, masks = backbone(images.double(), route)
        self.features: Tensor = features
        self.masks = {site: mask.bool() for site, mask in masks.items()}

    def _look(self, point: GatePoint, arguments: tuple[Any, ...], _: Tensor) -> None:
        _, x, route, _ = arguments
        gate = point.gate
        if gate is None or not route.gated:
            return
        rule = type(gate).pooled_rule(gate, gate.threshold_for(route.budget))  # whether or not the gate shows it
        assert rule is not None
        hidden_weight, hidden_bias, weight, bias = (tensor.double() for tensor in rule)
        hidden = torch.relu(x.mean(dim=(2, 3)) @ hidden_weight.T + hidden_bias)
        terms = hidden @ weight.abs().T + bias.abs()
        self.margins[point.site.name] = (hidden @ weight.T + bias).abs() / terms.clamp(min=1e-300)


class Difference(NamedTuple):
    """How a kernel differs from the reference.

    Attributes:
        error: The largest error of a feature, as a share of the largest feature of the batch.
        decisions: How many decisions were compared.
        margins: For each decision that differs, the distance of its logit in float64 from the threshold, as a share of the
            logit's terms.
        wrong: What must not be; empty if all is right.
    """

    error: float
    decisions: int
    margins: list[float]
    wrong: list[str]


def difference_in_float32(plan: Plan, reference: Reference, features: Tensor, opened: Tensor) -> Difference:
    """Of an image in which a decision differs, what follows that decision is not compared."""
    masks = opened.bool().split([site.channels for site in plan.sites], dim=1)
    as_exact = torch.ones(len(features), dtype=torch.bool)
    decisions = 0
    margins: list[float] = []
    for site, mask in zip(plan.sites, masks, strict=True):
        differs = (mask != reference.masks[site.name]) & as_exact[:, None]
        decisions += int(as_exact.sum()) * site.channels
        margins += reference.margins[site.name][differs].tolist()
        as_exact &= ~differs.any(dim=1)
    errors = (features - reference.features).abs()[as_exact] / reference.features.abs().max()
    error = float(errors.max()) if len(errors) else 0.0
    wrong = [] if error < WORST_ERROR else [f"a feature differs by {error:.1e}"]
    wrong += [f"a decision differs at {margin:.1e} from its threshold" for margin in margins if not margin < CLOSE]
    return Difference(error, decisions, margins, wrong)


def difference_in_bf16(plan: Bf16Plan, images: Tensor, features: Tensor, opened: Tensor) -> Difference:
    """Where sums are exact (see :func:`tests.helpers.bf16_network.with_exact_sums`), all must be equal.

    Elsewhere a value may be rounded to the neighbour of the right one, and a decision may differ by that. Then features are
    compared as a whole.
    """
    run = Bf16Run(plan)
    expected = run(images)
    error = float((features - expected).abs().max() / expected.abs().max().clamp(min=1e-300))
    masks = torch.cat([run.masks[site.name] for site in plan.sites], dim=1) if plan.sites else torch.zeros(len(images), 0)
    differ = int((masks != opened).sum())
    if not run.exact:
        whole = float((features - expected).norm() / expected.norm().clamp(min=1e-300))
        as_rounded = whole < (OTHER_DECISIONS if differ else ROUNDED)
        return Difference(error, 0, [], [] if as_rounded else [f"features differ by {whole:.1e} in bf16"])
    wrong = [] if error < CLOSE else [f"a feature differs by {error:.1e} in bf16"]
    wrong += [f"{differ} decisions differ in bf16"] if differ else []
    return Difference(error, opened.numel(), [], wrong)


def difference_in_int8(plan: Int8Plan, images: Tensor, features: Tensor, opened: Tensor) -> Difference:
    """Every bit must be as stated."""
    wrong = []
    for image, row, entries in zip(images, features, opened, strict=True):
        expected, masks = int8_network.run(plan, image.numpy())
        kept = np.concatenate([masks[site.name] for site in plan.sites] or [np.zeros(0, bool)])
        if not np.array_equal(row.numpy(), expected):
            wrong.append("features differ in int8")
        if not np.array_equal(entries.numpy().astype(bool), kept):
            wrong.append("decisions differ in int8")
    return Difference(0.0, opened.numel(), [], wrong)
