"""Networks with masks of positions: what the executor gives, and what refuses them."""

from __future__ import annotations

import pytest
import torch

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import compiled
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.static import make_static
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.errors import RunError
from ssl_dc.routes import Route
from tests.compiled.test_executor import BACKENDS, assert_same
from tests.helpers.random_networks import random_encoder

SCHEMES = ("dgnet_spatial", "dgnet_dual")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gating", SCHEMES)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_same_as_the_reference(backend: str, gating: str, backbone: str) -> None:
    encoder = random_encoder(**{"gating.name": gating, "backbone.name": backbone, "backbone.stem": "cifar"})
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, backend=backend)
    images = torch.randn(3, 3, 32, 32)
    images[:, :, :, 16:] *= 0.1  # cells differ
    assert_same(encoder, Route.GATED, executor, images[:1])
    assert_same(encoder, Route.GATED, executor, images)
    masks = executor(images).masks
    assert 0.1 < float(torch.cat([mask.flatten() for mask in masks.values()]).mean()) < 0.9
    partly = [site for site, mask in masks.items() if "positions" in site and bool((mask.std(dim=1) > 0).any())]
    assert partly, "each image opens all cells of a site or none"
    assert torch.equal(executor(images).macs, encoder.cost_model(32).gated_macs(masks))


def test_the_channels_of_a_dual_gate_are_picked_and_the_positions_are_named_as_saving_nothing() -> None:
    encoder = random_encoder(**{"gating.name": "dgnet_dual"})
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED)
    sites = [step.site.name for step in executor.plan.steps if isinstance(step, Decide)]
    assert executor.sites_that_save_nothing == [site for site in sites if site.endswith(".positions")]
    picked = [step.out_site for step in executor.plan.steps if isinstance(step, Conv) and step.out_site]
    assert picked == [site for site in sites if site.endswith(".hidden")]


@pytest.mark.parametrize("gating", SCHEMES)
def test_a_static_network_and_int8_refuse_masks_of_positions(gating: str) -> None:
    backbone = random_encoder(**{"gating.name": gating}).backbone(Route.GATED)
    plan = fuse(capture(backbone, Route.GATED))
    with pytest.raises(RunError, match=r"positions: a mask of positions removes no channel and no branch"):
        make_static(plan, {site.name: torch.ones(site.channels) for site in plan.sites}, 0.5)
    with pytest.raises(RunError, match=r"int8 cannot compute the gate at .*positions, which has no pooled rule"):
        compiled(backbone, Route.GATED, precision="int8", calibration=torch.randn(2, 3, 32, 32))
