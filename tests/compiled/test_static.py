"""A static network is without what is seldom open, and what stays computes what it did."""

from __future__ import annotations

import pytest
import torch

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.plan_size import macs_of, parameters_of
from ssl_dc.compiled.static import make_static
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.gating.base import Gate
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_cut_at_the_masks_of_one_image_is_the_gated_route_of_that_image(gating: str, backbone: str) -> None:
    encoder = random_encoder(**{"gating.name": gating, "backbone.name": backbone})
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected, masks = encoder(images, Route.GATED)
    assert all(int(mask.sum()) > 0 for site, mask in masks.items() if mask.shape[1] > 1)
    plan = make_static(
        fuse(capture(encoder.backbone(Route.GATED), Route.GATED)),
        {site: mask[0] for site, mask in masks.items()},
        0.5,
        multiple=1,
    )
    assert not any(isinstance(step, Decide) for step in plan.steps)
    with torch.no_grad():
        static = PlanNetwork(plan)(images)
    assert float((static - expected).abs().max() / expected.abs().max()) < 1e-5
    cost = encoder.cost_model(32)
    gates = sum(layer.macs for layer in cost.layers if layer.gate)
    assert macs_of(plan, 32) == int(cost.gated_macs(masks)) - gates
    assert parameters_of(plan) == sum(parameter.numel() for parameter in PlanNetwork(plan).parameters())
    executor = Executor(plan, encoder.cost_model)
    assert float((executor(images).features - expected).abs().max() / expected.abs().max()) < 1e-5


def test_some_channels_stay_where_all_are_shut() -> None:
    encoder = random_encoder()
    for module in encoder.modules():
        if isinstance(module, Gate):
            module.thresholds.fill_(1e9)
    full = fuse(capture(encoder.backbone(Route.GATED), Route.GATED))
    plan = make_static(full, {site.name: torch.zeros(site.channels) for site in full.sites}, 0.5)
    with torch.no_grad():
        assert PlanNetwork(plan)(torch.randn(2, 3, 32, 32)).isfinite().all()
    assert 0 < macs_of(plan, 32) < macs_of(full, 32)


def test_what_is_open_as_often_as_asked_stays() -> None:
    encoder = random_encoder()
    full = fuse(capture(encoder.backbone(Route.GATED), Route.GATED))
    whole = make_static(full, {site.name: torch.full((site.channels,), 0.25) for site in full.sites}, 0.25)
    assert macs_of(whole, 32) == macs_of(full, 32) == encoder.cost_model(32).dense_macs


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.1, 1.1])
def test_shares_that_are_none_are_refused(share: float) -> None:
    full = fuse(capture(random_encoder().backbone(Route.GATED), Route.GATED))
    with pytest.raises(ValueError, match=r"min_open_share must be in \[0, 1\]"):
        make_static(full, {site.name: torch.ones(site.channels) for site in full.sites}, share)


def test_a_plan_with_decisions_is_no_plain_network() -> None:
    with pytest.raises(ValueError, match="decisions"):
        PlanNetwork(fuse(capture(random_encoder().backbone(Route.GATED), Route.GATED)))


def test_counts_are_rounded_up_and_the_most_open_stay_first() -> None:
    encoder = random_encoder(**{"backbone.width": 64})
    full = fuse(capture(encoder.backbone(Route.GATED), Route.GATED))
    shares = {site.name: torch.linspace(0, 1, site.channels) for site in full.sites}
    static = {step.layer: step for step in make_static(full, shares, 0.9, multiple=16).steps if isinstance(step, Conv)}
    whole = {step.layer: step for step in full.steps if isinstance(step, Conv)}
    assert static["stages.layer1.0.conv1"].weight.shape[0] == 16  # 7 of 64 are open as often as that
    assert static["stages.layer4.1.conv2"].weight.shape[1] == 64  # 52 of 512
    assert torch.equal(static["stages.layer1.0.conv1"].weight, whole["stages.layer1.0.conv1"].weight[-16:])
