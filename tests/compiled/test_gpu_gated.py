"""The ways of ``benchmarks/gpu_gated.py`` compute the gated route. Only a GPU can tell how fast they are there."""

from __future__ import annotations

import pytest
import torch

from helpers.benchmarks import benchmark
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.routes import Route
from tests.helpers.random_networks import random_encoder

benchmark("gated_speed")  # which the other one imports
ways = benchmark("gpu_gated")


@pytest.mark.parametrize("way", [ways.Union, ways.Gathered])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_batch_is_computed_as_the_gated_route_is(way: type, backbone: str) -> None:
    torch.manual_seed(0)
    encoder = random_encoder(**{"backbone.name": backbone})
    images = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = encoder(images, Route.GATED)
    assert any(len(set(mask.sum(dim=1).tolist())) > 1 for mask in expected.masks.values())  # images keep different numbers
    plan = fuse(capture(encoder.backbone(Route.GATED), Route.GATED))
    features = way(plan, torch.device("cpu"), torch.float32)(images)
    assert float((features - expected.features).abs().max()) < 1e-5 * float(expected.features.abs().max())
