"""The encoder with one set of weights, and the route as the one mechanism that training and export share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers.networks import DGNET, SEPARATE, random_images, resnet
from ssl_dc.backbones.base import Backbone
from ssl_dc.encoders.base import Encoded
from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.encoders.shared import SharedEncoder
from ssl_dc.gating.base import GateFactory, GatingScheme, gates_of
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.routes import Route


def encoder(gating: GatingScheme = DGNET, width: int = 8) -> SharedEncoder:
    def make_backbone(gate_factory: GateFactory) -> Backbone:
        return resnet(width=width, norms=SEPARATE, gates=gate_factory)

    made = SharedEncoder(SharedEncoderOptions(), make_backbone, gating)
    with torch.no_grad():
        for _ in range(3):
            made(random_images(8), Route.DENSE)
            if gates_of(made):
                made(random_images(8), Route.GATED)
    return made


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("route", Route.BOTH)
def test_features_have_the_declared_width_on_both_routes(route: Route, width: int) -> None:
    net = encoder(width=width)
    encoded = net(random_images(), route)
    assert isinstance(encoded, Encoded)
    assert net.feature_dim == 8 * width
    assert encoded.features.shape == (4, 8 * width)


def test_masks_come_with_the_gated_route_only() -> None:
    net = encoder()
    assert net(random_images(), Route.DENSE).masks == {}
    masks = net(random_images(), Route.GATED).masks
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        f"stages.layer{stage + 1}.{block}.hidden": (4, 8 * 2**stage) for stage in range(4) for block in range(2)
    }
    assert set(masks) == set(net.cost_model(12).channels)


def test_without_gating_both_routes_have_no_gates() -> None:
    net = encoder(NoGating(NoGatingOptions()))
    assert gates_of(net) == []
    assert net(random_images(), Route.DENSE).masks == {}
    cost = net.cost_model(12)
    assert cost.floor_macs == cost.dense_macs == encoder().cost_model(12).dense_macs


def test_both_routes_run_the_same_convolutions() -> None:
    net = encoder()
    assert net.backbone(Route.DENSE) is net.backbone(Route.GATED)
    for route in Route.BOTH:
        net.zero_grad(set_to_none=True)
        net(random_images(), route).features.square().sum().backward()
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d) and ".gate." not in name:
                assert module.weight.grad is not None, name
                assert module.weight.grad.abs().max() > 0, name


def test_cost_model_is_that_of_the_backbone() -> None:
    net = encoder()
    assert net.cost_model(12) == net.backbone(Route.GATED).cost_model(12)


class OneRoute(nn.Module):
    """What export sees: images to features on a fixed route."""

    def __init__(self, net: SharedEncoder, route: Route) -> None:
        super().__init__()
        self.net = net
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x, self.route).features
        return features


@pytest.mark.long
@pytest.mark.parametrize(("route", "convolutions"), [(Route.DENSE, 1 + 16 + 3), (Route.GATED, 1 + 16 + 3 + 16)])
def test_each_route_exports_as_a_graph_of_its_own(route: Route, convolutions: int) -> None:
    net = encoder().eval()
    other = Route.GATED if not route.gated else Route.DENSE
    with torch.no_grad():
        program = torch.export.export(OneRoute(net, route), (random_images(),))
        exported = program.module()(random_images())
        expected = net(random_images(), route).features
        assert not torch.allclose(exported, net(random_images(), other).features, atol=1e-4)
    torch.testing.assert_close(exported, expected)
    counted = [node for node in program.graph.nodes if "conv" in str(node.target) and node.op == "call_function"]
    assert len(counted) == convolutions
