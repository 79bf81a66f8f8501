"""ConvNet-AIG's losses: a target rate for each block, or a budget for the whole network (method section 5)."""

from __future__ import annotations

import pytest
import torch

from helpers.gates import convnet_aig_gate, cost_of_two_sites
from ssl_dc.gating.convnet_aig import ConvNetAIG
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import ConvNetAIGOptions

COST = cost_of_two_sites({"s": 1, "t": 1})


MASKS = {"s": torch.tensor([[1.0], [0], [0], [0]]), "t": torch.tensor([[1.0], [1], [1], [0]])}


# open shares 1/4 and 3/4; costs 1010, 410, 410 and 110 of 1000
RATIO = (1.01 + 0.41 + 0.41 + 0.11) / 4


@pytest.mark.parametrize("progress", [0.0, 0.7])
def test_rate_loss_by_hand(progress: float) -> None:
    losses = ConvNetAIG(ConvNetAIGOptions()).losses(Trace(MASKS, COST), 0.3, progress)
    assert set(losses) == {"rate"}
    assert losses["rate"].item() == pytest.approx(2 * ((0.3 - 0.25) ** 2 + (0.3 - 0.75) ** 2) / 2, rel=1e-5)


def test_budget_loss_by_hand() -> None:
    options = ConvNetAIGOptions(loss="budget", penalty=5)
    losses = ConvNetAIG(options).losses(Trace(MASKS, COST), 0.3, 0.5)
    assert set(losses) == {"budget"}
    assert losses["budget"].item() == pytest.approx(5 * (RATIO - 0.3) ** 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["target_rate", "budget"])
def test_weight_of_the_loss_is_an_option(loss: str) -> None:
    one, three = (
        next(iter(ConvNetAIG(ConvNetAIGOptions(loss=loss, penalty=p)).losses(Trace(MASKS, COST), 0.9, 0).values()))  # type: ignore[arg-type]
        for p in (1, 3)
    )
    assert three.item() == pytest.approx(3 * one.item(), rel=1e-6)
    assert one.item() > 0


@pytest.mark.parametrize("loss", ["target_rate", "budget"])
def test_descending_the_loss_shuts_branches_that_are_too_many(loss: str) -> None:
    gate = convnet_aig_gate(options=ConvNetAIGOptions(loss=loss)).train()  # type: ignore[arg-type]
    torch.manual_seed(0)
    mask = gate(torch.randn(64, 8, 2, 2), gate.thresholds[0])
    scheme = ConvNetAIG(ConvNetAIGOptions(loss=loss))  # type: ignore[arg-type]
    next(iter(scheme.losses(Trace({"s": mask, "t": mask}, COST), 0.1, 0.0).values())).backward()
    assert gate.excite.bias is not None
    assert gate.excite.bias.grad is not None
    skip, run = gate.excite.bias.grad.tolist()
    assert skip < 0 < run
