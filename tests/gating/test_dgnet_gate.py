"""One gate of DGNet: its logits, its noise, its mask and the mask's gradient (method section 4)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.gates import dgnet_gate, drawn_anew, kolmogorov_smirnov, plain_logits
from ssl_dc.gating import dgnet
from ssl_dc.gating.base import set_threshold
from ssl_dc.gating.dgnet import DGNet, DGNetGate, logistic_noise, straight_through
from ssl_dc.gating.options import DGNetOptions
from ssl_dc.gating.sites import GateSite, Granularity


def test_published_defaults() -> None:
    options = DGNetOptions()
    assert options.temperature == pytest.approx(2 / 3)
    assert (options.reduction, options.noise, options.penalty, options.bound) == (4, 1.0, 5.0, 1.0)


def test_gate_layers_are_bias_free_1x1_convolutions_of_a_quarter_the_width() -> None:
    gate = dgnet_gate(in_channels=16, channels=24)
    shapes = [tuple(m.weight.shape) for m in gate.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(4, 16, 1, 1), (24, 4, 1, 1)]
    assert all(m.bias is None for m in gate.modules() if isinstance(m, nn.Conv2d))


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_straight_through_is_exactly_the_step_at_one_half(values: list[float]) -> None:
    hard = straight_through(torch.tensor(values, dtype=torch.float32))
    assert hard.tolist() == [1.0 if value >= 0.5 else 0.0 for value in values]


def test_straight_through_gradient_is_that_of_the_tempered_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[-1.5, -0.2, 0.0, 0.4, 2.0, 0.9]], requires_grad=True)
    noise = torch.tensor([[0.3, 0.7, 0.0, -1.1, -0.4, -0.9001]])
    upstream = torch.tensor([[1.0, -2.0, 3.0, 0.5, -1.0, 4.0]])
    gate = dgnet_gate().train()
    monkeypatch.setattr(gate, "logits", lambda _x: raw)
    monkeypatch.setattr(dgnet, "logistic_noise", lambda _logits: noise)
    mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
    assert mask.tolist() == [[0, 1, 1, 0, 1, 0]]
    (mask * upstream).sum().backward()
    tau = 2 / 3
    for i in range(6):
        soft = 1 / (1 + math.exp(-(raw[0, i].item() + noise[0, i].item()) / tau))
        expected = upstream[0, i].item() * soft * (1 - soft) / tau
        assert raw.grad[0, i].item() == pytest.approx(expected, rel=1e-5)


def test_temperature_option_scales_the_gradient_not_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgnet, "logistic_noise", torch.zeros_like)
    for tau in (0.5, 2.0):
        raw = torch.tensor([[-0.3, 0.6]], requires_grad=True)
        gate = dgnet_gate(channels=2, options=DGNetOptions(temperature=tau)).train()
        monkeypatch.setattr(gate, "logits", lambda _x, raw=raw: raw)
        mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
        assert mask.tolist() == [[0, 1]]
        mask.sum().backward()
        soft = 1 / (1 + math.exp(-0.6 / tau))
        assert raw.grad[0, 1].item() == pytest.approx(soft * (1 - soft) / tau, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_logits_by_hand(training: bool) -> None:
    torch.manual_seed(2)
    gate = dgnet_gate(in_channels=8, channels=5).train(training)
    drawn_anew(gate)
    x = torch.randn(6, 8, 3, 5)
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), plain_logits(gate, x), rtol=1e-3, atol=1e-5)


def test_evaluation_mask_is_logits_at_least_0_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = dgnet_gate(channels=5).eval()
    raw = torch.tensor([[-3.0, -1e-4, 0.0, 1e-4, 3.0]])
    monkeypatch.setattr(gate, "logits", lambda _x: raw)
    state = torch.get_rng_state()
    mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
    assert mask.tolist() == [[0, 0, 1, 1, 1]]
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_standard_logistic() -> None:
    torch.manual_seed(0)
    noise = logistic_noise(torch.zeros(2_000, 10))
    assert torch.isfinite(noise).all()
    assert kolmogorov_smirnov(noise, torch.sigmoid) < 1.63
    assert noise.double().var().item() == pytest.approx(math.pi**2 / 3, rel=0.05)


def test_noise_option_scales_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[-1.5, 0.5, -0.1]])
    monkeypatch.setattr(dgnet, "logistic_noise", lambda _logits: torch.tensor([[2.0, -0.8, 0.0]]))
    for scale, expected in [(1.0, [1, 0, 0]), (0.5, [0, 1, 0]), (0.0, [0, 1, 0])]:
        gate = dgnet_gate(channels=3, options=DGNetOptions(noise=scale)).train()
        monkeypatch.setattr(gate, "logits", lambda _x: raw)
        assert gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0]).tolist() == [expected], scale


def test_noise_differs_between_images_and_channels() -> None:
    noise = logistic_noise(torch.zeros(50, 40))
    assert noise.unique().numel() > 1990


def test_training_gate_opens_with_probability_sigmoid_of_its_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])
    gate = dgnet_gate(channels=5).train()
    monkeypatch.setattr(gate, "logits", lambda _x: logits.expand(20_000, 5))
    opened = gate(torch.zeros(1, 8, 1, 1), gate.thresholds[0]).mean(dim=0)
    for rate, logit in zip(opened.tolist(), logits.tolist(), strict=True):
        assert rate == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.014)


@pytest.mark.parametrize("training", [True, False])
def test_mask_has_the_dtype_of_the_input_and_logits_are_float32(training: bool) -> None:
    gate = dgnet_gate().train(training)
    x = torch.randn(4, 8, 3, 3).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gate.logits(x).dtype is torch.float32
        assert gate(x, gate.thresholds[0]).dtype is torch.bfloat16


def test_threshold_shuts_logits_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = dgnet_gate(channels=4).eval()
    monkeypatch.setattr(gate, "logits", lambda _x: torch.tensor([[-1.0, 0.5, 1.52, 2.0]]))
    set_threshold(gate, 1.5)
    assert gate(torch.zeros(1, 8, 1, 1), gate.thresholds[0]).tolist() == [[0, 0, 1, 1]]


def test_dgnet_gates_channel_sites_only() -> None:
    scheme = DGNet(DGNetOptions())
    assert scheme.make_gate(GateSite("b.branch", Granularity.BRANCH, 8, 1, ())) is None
    assert isinstance(scheme.make_gate(GateSite("b.hidden", Granularity.CHANNEL, 8, 8, ())), DGNetGate)
