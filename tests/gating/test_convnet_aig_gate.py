"""One gate of ConvNet-AIG: its start, its logits, its noise, its mask and the mask's gradient (method section 5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.gates import convnet_aig_gate, drawn_anew, kolmogorov_smirnov, plain_logits
from ssl_dc.gating import convnet_aig
from ssl_dc.gating.base import set_threshold
from ssl_dc.gating.convnet_aig import ConvNetAIG, ConvNetAIGGate, gumbel_noise
from ssl_dc.gating.options import ConvNetAIGOptions
from ssl_dc.gating.sites import GateSite, Granularity


def with_logits(gate: ConvNetAIGGate, logits: Tensor, monkeypatch: pytest.MonkeyPatch) -> ConvNetAIGGate:
    """The gate, deciding by the given logits (N, 2) of skip and run."""
    monkeypatch.setattr(gate, "logits", lambda _x: logits)
    return gate


ANYTHING = torch.zeros(1, 8, 2, 2)


def test_published_defaults() -> None:
    options = ConvNetAIGOptions()
    assert (options.hidden, options.noise, options.loss, options.penalty) == (16, 1.0, "target_rate", 2.0)


def test_gate_layers_are_1x1_convolutions_with_biases() -> None:
    convolutions = [m for m in convnet_aig_gate(in_channels=24).modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in convolutions] == [(16, 24, 1, 1), (2, 16, 1, 1)]
    assert all(m.bias is not None for m in convolutions)


def test_last_layer_starts_at_its_bias_with_tiny_weights() -> None:
    torch.manual_seed(0)
    gates = [convnet_aig_gate() for _ in range(60)]
    for gate in gates:
        assert gate.excite.bias is not None
        assert gate.excite.bias.tolist() == pytest.approx([0.1, 2.0])
    weights = torch.cat([gate.excite.weight.flatten() for gate in gates]).double()
    assert weights.numel() == 60 * 32
    assert weights.std().item() == pytest.approx(0.001, rel=0.08)
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)


def test_about_85_percent_of_the_branches_run_at_the_start() -> None:
    torch.manual_seed(0)
    gate = convnet_aig_gate().train()
    opened = torch.cat([gate(torch.randn(10_000, 8, 1, 1), gate.thresholds[0]) for _ in range(3)]).mean().item()
    # a difference of two Gumbel variables is logistic: sigmoid(2 - 0.1) = 0.870
    assert opened == pytest.approx(1 / (1 + math.exp(-1.9)), abs=0.008)
    assert 0.84 < opened < 0.88


def test_evaluation_is_argmax_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[0.1, 2.0], [2.0, 0.1], [-3.0, -3.001], [-3.001, -3.0]])
    gate = with_logits(convnet_aig_gate().eval(), logits, monkeypatch)
    state = torch.get_rng_state()
    assert gate(ANYTHING, gate.thresholds[0]).flatten().tolist() == [1, 0, 0, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_training_gate_runs_with_the_probability_of_its_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for skip, run in [(0.0, 0.0), (0.1, 2.0), (1.0, -1.0)]:
        gate = with_logits(convnet_aig_gate().train(), torch.tensor([[skip, run]]).expand(20_000, 2), monkeypatch)
        expected = math.exp(run) / (math.exp(skip) + math.exp(run))
        assert gate(ANYTHING, gate.thresholds[0]).mean().item() == pytest.approx(expected, abs=0.014)


def test_noise_is_standard_gumbel() -> None:
    torch.manual_seed(0)
    noise = gumbel_noise(torch.zeros(10_000, 2))
    assert torch.isfinite(noise).all()
    assert kolmogorov_smirnov(noise, lambda x: torch.exp(-torch.exp(-x))) < 1.63
    assert noise.double().var().item() == pytest.approx(math.pi**2 / 6, rel=0.06)


def test_noise_option_scales_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convnet_aig, "gumbel_noise", lambda _logits: torch.tensor([[1.0, 0.0]]))
    for scale, expected in [(1.0, 0), (0.5, 1), (0.0, 1)]:
        gate = convnet_aig_gate(options=ConvNetAIGOptions(noise=scale)).train()
        with_logits(gate, torch.tensor([[0.0, 0.75]]), monkeypatch)
        assert gate(ANYTHING, gate.thresholds[0]).item() == expected, scale


def test_straight_through_gradient_is_that_of_the_softmax_at_temperature_1(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[0.2, 1.0], [-0.5, -0.4], [3.0, 0.0]], requires_grad=True)
    noise = torch.tensor([[0.9, -0.3], [-1.0, 0.4], [0.2, 0.1]])
    upstream = torch.tensor([[1.0], [-2.0], [3.0]])
    monkeypatch.setattr(convnet_aig, "gumbel_noise", lambda _logits: noise)
    gate = with_logits(convnet_aig_gate().train(), raw, monkeypatch)
    mask = gate(ANYTHING, gate.thresholds[0])
    assert mask.flatten().tolist() == [0, 1, 0]
    (mask * upstream).sum().backward()
    assert raw.grad is not None
    for i in range(3):
        skip, run = (raw[i, c].item() + noise[i, c].item() for c in (0, 1))
        soft = math.exp(run) / (math.exp(skip) + math.exp(run))
        expected = upstream[i, 0].item() * soft * (1 - soft)
        assert raw.grad[i].tolist() == pytest.approx([-expected, expected], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_logits_by_hand(training: bool) -> None:
    torch.manual_seed(2)
    gate = convnet_aig_gate(in_channels=6).train(training)
    nn.init.normal_(gate.excite.weight)
    drawn_anew(gate)
    x = torch.randn(7, 6, 3, 5)
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), plain_logits(gate, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_mask_has_the_dtype_of_the_input_and_logits_are_float32(training: bool) -> None:
    gate = convnet_aig_gate().train(training)
    x = torch.randn(4, 8, 3, 3).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gate.logits(x).dtype is torch.float32
        mask = gate(x, gate.thresholds[0])
    assert mask.dtype is torch.bfloat16
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("training", [True, False])
def test_threshold_is_what_run_must_exceed_skip_by(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convnet_aig, "gumbel_noise", torch.zeros_like)
    logits = torch.tensor([[0.5, 1.9], [0.5, 2.1], [-1.0, 0.0], [-2.0, 0.0]])
    gate = with_logits(convnet_aig_gate().train(training), logits, monkeypatch)
    set_threshold(gate, 1.5)
    assert gate(ANYTHING, gate.thresholds[0]).flatten().tolist() == [0, 1, 0, 1]


def test_scheme_gates_branch_sites_only() -> None:
    scheme = ConvNetAIG(ConvNetAIGOptions())
    assert scheme.make_gate(GateSite("b.hidden", Granularity.CHANNEL, 8, 8, ())) is None
    assert isinstance(scheme.make_gate(GateSite("b.branch", Granularity.BRANCH, 8, 1, ())), ConvNetAIGGate)
