"""Saliency top-k: which channels are open and how many, what the gradient is, and that a run pays its budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_saliency.options import SaliencyOptions
from ssl_dc_saliency.scheme import Saliency, SaliencyGate

torch.set_num_threads(1)

Array = NDArray[np.float64]

test_saliency = conformance("gating", "saliency")


def make_gate(channels: int = 10, in_channels: int = 6, **options: Any) -> SaliencyGate:
    torch.manual_seed(0)
    site = ssl_dc.GateSite("block.hidden", ssl_dc.Granularity.CHANNEL, in_channels, channels, ())
    return Saliency(SaliencyOptions(**options)).gate(site)


def inputs(count: int = 5, channels: int = 6) -> Tensor:
    return torch.randn(count, channels, 3, 3, generator=torch.Generator().manual_seed(1))


def set_threshold(gate: SaliencyGate, threshold: float) -> None:
    """As the budget control does: nearly the same for all channels."""
    gate.thresholds[0].copy_(threshold + 1e-3 * torch.linspace(-1, 1, gate.thresholds.shape[1]))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def plain_saliency(gate: SaliencyGate, x: Tensor) -> Array:
    """Saliencies before they are standardised, image by image and channel by channel."""
    weight, bias = gate.predictor.weight.detach().double().numpy(), gate.predictor.bias.detach().double().numpy()
    context = np.array([[np.abs(channel).sum() / channel.size for channel in image] for image in x.double().numpy()])
    return np.array([[float(row @ c) + b for row, b in zip(weight, bias, strict=True)] for c in context])


# Which channels are open


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [1, 4, 10, 33])
@pytest.mark.parametrize("threshold", [-16.0, -1.3, 0.0, 0.4, 2.2, 16.0])
def test_exactly_the_k_most_salient_are_open(threshold: float, channels: int, training: bool) -> None:
    gate = make_gate(channels, share=0.4).train(training)
    set_threshold(gate, threshold)
    mask = gate(inputs(), gate.thresholds[0])
    k = round(channels * sigmoid(math.log(0.4 / 0.6) - threshold))
    assert mask.sum(dim=1).tolist() == [k] * 5
    for image, saliency in zip(mask.tolist(), plain_saliency(gate, inputs()), strict=True):
        by_saliency = sorted(range(channels), key=lambda channel: -saliency[channel])
        assert image == [1.0 if channel in by_saliency[:k] else 0.0 for channel in range(channels)]


def test_the_open_channels_depend_on_the_image() -> None:
    masks = make_gate(32).eval()(inputs(20), torch.zeros(32))
    assert len(masks.unique(dim=0)) > 1


def test_a_rising_threshold_only_shuts() -> None:
    gate = make_gate(16).eval()
    before = torch.ones(5, 16)
    counts = []
    for threshold in np.linspace(-6, 6, 50):
        set_threshold(gate, float(threshold))
        mask = gate(inputs(), gate.thresholds[0])
        assert (mask <= before).all()
        counts.append(int(mask.sum()))
        before = mask
    assert counts[0] == 5 * 16
    assert counts[-1] == 0
    assert len(set(counts)) == 17, "every k must occur"


def test_channels_that_are_all_as_salient_are_open_as_many() -> None:
    gate = make_gate(10).eval()
    assert gate(torch.zeros(3, 6, 2, 2), gate.thresholds[0]).sum(dim=1).tolist() == [5.0] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exactly_0_or_1_in_the_dtype_of_the_input(dtype: torch.dtype, training: bool) -> None:
    gate = make_gate(10).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        mask = gate(inputs().to(dtype), gate.thresholds[0])
    assert mask.dtype is dtype
    assert set(mask.unique().tolist()) == {0.0, 1.0}


# The gradient


def plain_surrogate(weight: Array, lean: float, gate: SaliencyGate, x: Tensor, upstream: Array) -> float:
    """Sum of upstream * sigmoid((score + lean - threshold) / temperature), ranks as the gate's own weights give them."""
    context = np.abs(x.double().numpy()).mean(axis=(2, 3))

    def standardised(matrix: Array) -> Array:
        s = context @ matrix.T
        return np.asarray((s - s.mean(axis=1, keepdims=True)) / np.sqrt(s.var(axis=1, keepdims=True) + 1e-5))

    here, moved = standardised(gate.predictor.weight.detach().double().numpy()), standardised(weight)
    channels = here.shape[1]
    total = 0.0
    for image in range(len(here)):
        ranks = {channel: rank for rank, channel in enumerate(np.argsort(-here[image]))}
        for channel in range(channels):
            position = (ranks[channel] + 0.5) / channels
            quantile = math.log((1 - position) / position)
            score = quantile + math.pi / math.sqrt(3) * (moved[image, channel] - here[image, channel])
            total += upstream[image, channel] * sigmoid((score + lean - 0.3) / gate.temperature)
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_gradient_is_that_of_the_saliencies_scores(temperature: float) -> None:
    gate = make_gate(7, temperature=temperature).double().train()
    set_threshold(gate, 0.3)
    upstream = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (gate(inputs().double(), gate.thresholds[0]) * upstream).sum().backward()
    weight, lean = gate.predictor.weight, gate.lean
    assert weight.grad is not None
    assert lean.grad is not None
    at = weight.detach().numpy().copy()
    for index in [(0, 0), (3, 2), (6, 5)]:
        values = []
        for move in (1e-4, -1e-4):
            moved = at.copy()
            moved[index] += move
            values.append(plain_surrogate(moved, lean.item(), gate, inputs(), upstream.numpy()))
        expected = (values[0] - values[1]) / 2e-4
        assert abs(expected) > 1e-4
        assert weight.grad[index].item() == pytest.approx(expected, rel=1e-3)
    values = [plain_surrogate(at, lean.item() + move, gate, inputs(), upstream.numpy()) for move in (1e-4, -1e-4)]
    assert lean.grad.item() == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-3)


def test_the_budget_loss_draws_the_open_share_to_the_budget() -> None:
    layers = (ssl_dc.LayerCost("stem", 20), ssl_dc.LayerCost("conv", 80, ("block.hidden",)))
    cost = ssl_dc.CostModel(layers, {"block.hidden": 10})
    gate = make_gate(10).train()
    scheme = Saliency(SaliencyOptions(penalty=2.0))
    losses = scheme.losses(ssl_dc.Trace({"block.hidden": gate(inputs(), gate.thresholds[0])}, cost), 0.3, 0.0)
    assert losses.keys() == {"budget"}
    assert losses["budget"].item() == pytest.approx(2 * (0.2 + 0.8 * 0.5 - 0.3) ** 2, rel=1e-5)
    losses["budget"].backward()
    assert gate.lean.grad is not None
    assert gate.lean.grad.item() > 0, "descent must shut channels"


def test_the_decision_costs_one_multiplication_a_weight() -> None:
    assert make_gate(channels=10, in_channels=6).macs == 60


# In a run

TINY: dict[str, Any] = {
    "gating": "saliency",
    "objective.expander_width": 16,
    "backbone.width": 8,
    "data.limit": 32,
    "data.test_limit": 8,
    "data.image_size": 8,
    "training.batch_size": 16,
    "training.epochs": 3,
    "training.workers": 0,
}


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.7])
def test_a_run_pays_its_budget_for_every_image(tmp_path: Path, budget: float) -> None:
    run = ssl_dc.train({**TINY, "budget.target": budget}, output=tmp_path / "run")
    gated = run.outcome.routes[ssl_dc.Route.GATED]
    assert gated.ratio == pytest.approx(budget, abs=0.02)
    ratio = run.model.gated(torch.randn(6, 3, 8, 8)).ratio
    assert ratio.tolist() == pytest.approx([gated.ratio] * 6, abs=1e-6)


def test_with_the_penalty_alone_a_run_stays_near_the_share_that_it_begins_with(tmp_path: Path) -> None:
    settings = {**TINY, "budget.target": 0.3, "budget.control": "penalty", "gating.share": 0.25}
    run = ssl_dc.train(settings, output=tmp_path / "run")
    assert run.outcome.routes[ssl_dc.Route.GATED].ratio == pytest.approx(0.3, abs=0.1)
    thresholds = [value for name, value in run.model.encoder.named_buffers() if name.endswith("thresholds")]
    assert thresholds
    assert not any(value.any() for value in thresholds)


def test_every_gate_learns(tmp_path: Path) -> None:
    run = ssl_dc.train(TINY, output=tmp_path / "run")
    before = ssl_dc.Model.untrained(run.model.config).encoder
    gates = [(name, p) for name, p in before.named_parameters() if "predictor.weight" in name or name.endswith("lean")]
    assert len(gates) == 16
    after = dict(run.model.encoder.named_parameters())
    assert all(not torch.equal(after[name], p) for name, p in gates)


def test_options_are_checked() -> None:
    config = ssl_dc.RunConfig.model_validate({"gating": {"name": "saliency", "share": 0.2}})
    assert isinstance(config.gating, SaliencyOptions)
    for wrong in ({"share": 0}, {"share": 1}, {"temperature": 0}, {"noise": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ssl_dc.RunConfig.model_validate({"gating": {"name": "saliency", **wrong}})
