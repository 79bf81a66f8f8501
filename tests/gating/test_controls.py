"""The controls that a gate must beat, ``prefix`` and ``random``, and the ordered start."""

from __future__ import annotations

import pytest
import torch

from ssl_dc.gating.dgnet import ORDER, DGNetGate
from ssl_dc.gating.options import DGNetOptions, PrefixGatingOptions, RandomGatingOptions
from ssl_dc.gating.prefix import PrefixGating
from ssl_dc.gating.random import RandomGating
from ssl_dc.gating.sites import GateSite, Granularity

SITE = GateSite("site", Granularity.CHANNEL, in_channels=8, channels=16, layers=("conv",))


@pytest.mark.parametrize("opened", [0, 1, 5, 16])
@pytest.mark.parametrize("training", [True, False])
def test_prefix_opens_the_first_channels_for_every_image(opened: int, training: bool) -> None:
    gate = PrefixGating(PrefixGatingOptions()).gate(SITE).train(training)
    threshold = torch.full((16,), 0.5 - opened / 16)
    mask = gate(torch.randn(3, 8, 4, 4), threshold)
    assert torch.equal(mask, (torch.arange(16) < opened).float().expand(3, -1))
    assert gate.macs == 0


def test_prefix_s_rule_is_its_decision() -> None:
    gate = PrefixGating(PrefixGatingOptions()).gate(SITE).eval()
    threshold = torch.linspace(-0.4, 0.4, 16)
    rule = gate.pooled_rule(threshold)
    hidden = torch.relu(rule.hidden_bias + rule.hidden_weight @ torch.randn(8))
    assert torch.equal(rule.bias + rule.weight @ hidden >= 0, gate(torch.randn(1, 8, 4, 4), threshold)[0].bool())


def test_random_opens_as_many_channels_as_the_threshold_says_and_others_for_each_image() -> None:
    gate = RandomGating(RandomGatingOptions()).gate(SITE)
    x = torch.randn(2000, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    threshold = torch.full((16,), 0.2)  # of logits that are uniform in [-0.5, 0.5): 30 % are above
    for mode in (True, False):
        mask = gate.train(mode)(x, threshold)
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert mask.mean().item() == pytest.approx(0.3, abs=0.02)
        assert mask.mean(dim=0).sub(0.3).abs().max() < 0.08
        assert len({tuple(row) for row in mask.tolist()}) > 1000


def test_random_is_the_same_each_time_in_evaluation_and_not_in_training() -> None:
    gate, x, threshold = RandomGating(RandomGatingOptions()).gate(SITE), torch.randn(64, 8, 4, 4), torch.zeros(16)
    gate.eval()
    assert torch.equal(gate(x, threshold), gate(x, threshold))
    assert torch.equal(gate(x, threshold)[5:9], gate(x[5:9], threshold))
    gate.train()
    assert not torch.equal(gate(x, threshold), gate(x, threshold))


def test_controls_have_no_loss_and_nothing_to_learn() -> None:
    for scheme in (PrefixGating(PrefixGatingOptions()), RandomGating(RandomGatingOptions())):
        assert not list(scheme.gate(SITE).parameters())
        assert scheme.losses(None, 0.3, 0.5) == {}  # type: ignore[arg-type]  # it looks at nothing


def test_an_ordered_start_opens_the_first_channels_most() -> None:
    torch.manual_seed(0)
    gate = DGNetGate(SITE, DGNetOptions(start="ordered", noise=0.0)).eval()
    logits = gate.logits(torch.randn(256, 8, 4, 4)).mean(dim=0)
    expected = torch.linspace(ORDER, -ORDER, 16)
    assert (logits - expected).abs().max() < 1
    assert gate.excite.bias is not None
    assert gate.excite.bias.requires_grad
    even = DGNetGate(SITE, DGNetOptions()).eval()
    assert even.excite.bias is None
    assert even.macs == gate.macs


def test_the_rule_of_an_ordered_gate_is_its_decision() -> None:
    torch.manual_seed(0)
    gate = DGNetGate(SITE, DGNetOptions(start="ordered")).eval()
    x, threshold = torch.randn(32, 8, 4, 4), torch.linspace(-0.5, 0.5, 16)
    rule = gate.pooled_rule(threshold)
    hidden = torch.relu(rule.hidden_bias + x.mean(dim=(2, 3)) @ rule.hidden_weight.T)
    assert torch.equal(rule.bias + hidden @ rule.weight.T >= 0, gate(x, threshold).bool())
