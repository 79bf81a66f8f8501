"""The encoder with a backbone for each route and nothing shared (2x in Table 4 of the paper)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from helpers.networks import DGNET, SHARED, random_images
from helpers.settings import config_of
from ssl_dc.assemble import build_network
from ssl_dc.backbones.base import Backbone
from ssl_dc.backbones.options import ResNet18Options
from ssl_dc.backbones.resnet import ResNet18
from ssl_dc.config import RunConfig
from ssl_dc.encoders.double import DoubleEncoder
from ssl_dc.encoders.options import DoubleEncoderOptions
from ssl_dc.gating.base import GateFactory, GatingScheme, gates_of
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder

SIZE = 12


def make_backbone(gate_factory: GateFactory) -> Backbone:
    return ResNet18(ResNet18Options(width=8, stem="cifar"), SHARED.layer, gate_factory)


def encoder(gating: GatingScheme = DGNET) -> DoubleEncoder:
    torch.manual_seed(0)
    return DoubleEncoder(DoubleEncoderOptions(), make_backbone, gating)


def state(backbone: Backbone) -> dict[str, Tensor]:
    """Every parameter and buffer, by name."""
    return {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}


def test_the_copies_share_no_storage() -> None:
    net = encoder()
    gated, dense = (state(net.backbone(route)) for route in (Route.GATED, Route.DENSE))
    assert set(dense) < set(gated)
    pointers = [{tensor.untyped_storage().data_ptr() for tensor in tensors.values()} for tensors in (gated, dense)]
    assert len(pointers[0]) == len(gated), "within a copy each tensor has storage of its own"
    assert len(pointers[1]) == len(dense)
    assert not pointers[0] & pointers[1]
    modules = [set(map(id, net.backbone(route).modules())) for route in (Route.GATED, Route.DENSE)]
    assert not modules[0] & modules[1]
    parameters = {name for name, _ in net.named_parameters()}
    assert len(parameters) == sum(len(list(net.backbone(route).parameters())) for route in Route.BOTH)


def test_the_copies_start_from_weights_of_their_own() -> None:
    net = encoder()
    gated, dense = net.backbone(Route.GATED), net.backbone(Route.DENSE)
    assert not torch.equal(gated.conv1.weight, dense.conv1.weight)


def test_gates_are_in_the_gated_copy_only() -> None:
    net = encoder()
    assert len(gates_of(net.backbone(Route.GATED))) == 8
    assert gates_of(net.backbone(Route.DENSE)) == []
    assert len(gates_of(net)) == 8


def test_each_route_runs_through_its_own_copy() -> None:
    net = encoder()
    for route, other in [(Route.GATED, Route.DENSE), (Route.DENSE, Route.GATED)]:
        calls: list[Route] = []
        handles = [
            net.backbone(each).register_forward_pre_hook(lambda _m, _args, each=each, calls=calls: calls.append(each))
            for each in Route.BOTH
        ]
        untouched = {name: tensor.clone() for name, tensor in state(net.backbone(other)).items()}
        net.zero_grad(set_to_none=True)
        encoded = net(random_images(), route)
        encoded.features.square().sum().backward()
        for handle in handles:
            handle.remove()
        assert calls == [route]
        assert bool(encoded.masks) == (route.gated)
        assert all(p.grad is None for p in net.backbone(other).parameters())
        assert all(p.grad is not None for p in net.backbone(route).parameters())
        for name, tensor in state(net.backbone(other)).items():
            assert torch.equal(tensor, untouched[name]), name


def test_features_of_a_route_are_those_of_its_copy_alone() -> None:
    net = encoder().eval()
    with torch.no_grad():
        gated, masks = net.backbone(Route.GATED)(random_images(), Route.GATED)
        dense, _ = net.backbone(Route.DENSE)(random_images(), Route.DENSE)
        assert torch.equal(net(random_images(), Route.GATED).features, gated)
        assert torch.equal(net(random_images(), Route.DENSE).features, dense)
        for parameter in net.backbone(Route.GATED).parameters():
            parameter.fill_(1e3)
        assert torch.equal(net(random_images(), Route.DENSE).features, dense)
    assert len(masks) == 8


def test_cost_model_is_that_of_the_gated_copy() -> None:
    net = encoder()
    cost = net.cost_model(SIZE)
    assert cost == net.backbone(Route.GATED).cost_model(SIZE)
    alone = net.backbone(Route.DENSE).cost_model(SIZE)
    assert cost.dense_macs == alone.dense_macs, "the share is of one dense network, not of two"
    assert alone.floor_macs == alone.dense_macs
    assert cost.floor_macs < cost.dense_macs
    assert set(net(random_images(), Route.GATED).masks) == set(cost.channels)


def test_without_gating_no_copy_has_gates() -> None:
    net = encoder(NoGating(NoGatingOptions()))
    assert gates_of(net) == []
    assert net(random_images(), Route.DENSE).masks == {}


def test_feature_width_is_that_of_one_copy() -> None:
    net = encoder()
    assert net.feature_dim == 64
    assert all(net(random_images(), route).features.shape == (4, 64) for route in Route.BOTH)


def config() -> RunConfig:
    settings = {"encoder": "double", "backbone.width": 4, "data": "digits", "data.image_size": 16}
    return config_of(settings)


def test_a_run_with_two_copies_saves_and_loads(tmp_path: Path) -> None:
    network = build_network(config()).encoder
    assert isinstance(network, DoubleEncoder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        for route in Route.BOTH:
            network(torch.randn(8, 3, 16, 16), route)
    folder = RunFolder.create(tmp_path / "run", config())
    folder.save_model(network)
    loaded = RunFolder.existing(tmp_path / "run").load_model()
    saved = Model(config(), network)
    x = torch.randn(5, 3, 16, 16)
    assert torch.equal(loaded.dense(x), saved.dense(x))
    assert torch.equal(loaded.gated(x).features, saved.gated(x).features)
    assert torch.equal(loaded.gated(x).macs, saved.gated(x).macs)
    before, after = network.state_dict(), loaded.encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
