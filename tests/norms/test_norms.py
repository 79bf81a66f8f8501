"""Batch-norm policies: which statistics the two routes share (method section 3)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers.networks import DGNET, SEPARATE, SHARED, resnet
from ssl_dc.backbones.resnet import BasicBlock, ResNet
from ssl_dc.errors import ConfigError
from ssl_dc.norms.base import NormPolicy, Position, RouteNorm
from ssl_dc.routes import Route


def network(policy: NormPolicy) -> ResNet:
    return resnet(norms=policy, gates=DGNET.make_gate)


def images() -> Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 + 1


def norms_by_position(net: ResNet) -> dict[Position, list[RouteNorm]]:
    found: dict[Position, list[RouteNorm]] = {
        Position.STEM: [net.norm1],
        Position.BLOCK: [],
        Position.DOWNSAMPLE: [],
    }
    for block in net.modules():
        if isinstance(block, BasicBlock):
            found[Position.BLOCK] += [block.norm1, block.norm2]
            if block.shortcut is not None:
                found[Position.DOWNSAMPLE].append(block.shortcut.norm)
    return found


def statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, int]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean.clone(), norm.running_var.clone(), int(norm.num_batches_tracked)


def is_fresh(norm: nn.BatchNorm2d) -> bool:
    mean, var, count = statistics(norm)
    return count == 0 and not mean.any() and bool((var == 1).all())


@pytest.mark.parametrize(("here", "other"), [(Route.DENSE, Route.GATED), (Route.GATED, Route.DENSE)])
def test_separate_keeps_block_statistics_apart_and_shares_the_rest(here: Route, other: Route) -> None:
    net = network(SEPARATE)
    net(images(), here)
    norms = norms_by_position(net)
    assert [len(norms[position]) for position in Position] == [1, 16, 3]
    for norm in norms[Position.BLOCK]:
        assert norm.for_route(here) is not norm.for_route(other)
        assert is_fresh(norm.for_route(other))
        assert not is_fresh(norm.for_route(here))
    for norm in norms[Position.STEM] + norms[Position.DOWNSAMPLE]:
        assert norm.for_route(here) is norm.for_route(other)
        assert not is_fresh(norm.for_route(other))


@pytest.mark.parametrize("route", Route.BOTH)
def test_shared_has_one_set_of_statistics_everywhere(route: Route) -> None:
    net = network(SHARED)
    net(images(), route)
    for position, norms in norms_by_position(net).items():
        for norm in norms:
            assert norm.for_route(Route.DENSE) is norm.for_route(Route.GATED), position
            assert statistics(norm.for_route(route))[2] == 1


@pytest.mark.parametrize(("policy", "count"), [(SHARED, 20), (SEPARATE, 36)])
def test_number_of_batch_norms_outside_the_gates(policy: NormPolicy, count: int) -> None:
    net = network(policy)
    names = [n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and ".gate." not in n]
    assert len(names) == count


@pytest.mark.parametrize("position", list(Position))
@pytest.mark.parametrize("policy", [SHARED, SEPARATE])
@pytest.mark.parametrize("route", Route.BOTH)
def test_norm_layer_is_the_plain_batch_norm_of_its_route(policy: NormPolicy, position: Position, route: Route) -> None:
    norm = policy.layer(5, position)
    plain = nn.BatchNorm2d(5)
    for parameter, twin in zip(norm.for_route(route).parameters(), plain.parameters(), strict=True):
        nn.init.normal_(parameter)
        twin.data.copy_(parameter.data)
    x = torch.randn(3, 5, 4, 4) * 3 + 2
    assert torch.equal(norm(x, route), plain(x))
    norm.eval()
    plain.eval()
    assert torch.equal(norm(x, route), plain(x))
    assert not torch.allclose(norm(x, route), x)


def test_separate_routes_have_affine_parameters_of_their_own() -> None:
    norm = SEPARATE.layer(3, Position.BLOCK).eval()
    x = torch.randn(2, 3, 4, 4)
    dense, gated = norm(x, Route.DENSE), norm(x, Route.GATED)
    nn.init.constant_(norm.for_route(Route.GATED).weight, 7.0)
    assert torch.equal(norm(x, Route.DENSE), dense)
    torch.testing.assert_close(norm(x, Route.GATED), 7 * gated)
    norm.zero_grad()
    norm(x, Route.DENSE).sum().backward()
    assert norm.for_route(Route.DENSE).weight.grad is not None
    assert norm.for_route(Route.GATED).weight.grad is None


def test_separate_dense_features_are_untouched_by_gated_block_statistics() -> None:
    net = network(SEPARATE)
    net(images(), Route.DENSE)
    net.eval()
    before = net(images(), Route.DENSE)[0]
    for norm in norms_by_position(net)[Position.BLOCK]:
        mean = norm.for_route(Route.GATED).running_mean
        assert mean is not None
        mean.fill_(3.0)
    assert torch.equal(net(images(), Route.DENSE)[0], before)


@pytest.mark.parametrize("policy", [SEPARATE, SHARED], ids=["separate", "shared"])
@pytest.mark.parametrize("position", Position)
def test_a_policy_decides_about_layer_norms_as_about_batch_norms(policy: NormPolicy, position: Position) -> None:
    batch_norm, norm = policy.layer(5, position), policy.layer(5, position)
    layer = nn.LayerNorm(5, eps=0.1)
    nn.init.normal_(layer.weight)
    norm.normalise_by(layer)
    acting = [norm.for_route(route) for route in Route.BOTH]
    assert all(type(each) is nn.LayerNorm and each is not layer for each in acting)
    shared = batch_norm.for_route(Route.DENSE) is batch_norm.for_route(Route.GATED)
    assert (acting[0] is acting[1]) == shared
    tokens = torch.randn(2, 7, 5)
    for route in Route.BOTH:
        assert torch.equal(norm(tokens, route), layer(tokens))
    nn.init.constant_(norm.for_route(Route.GATED).weight, 7.0)
    assert torch.equal(norm(tokens, Route.DENSE), layer(tokens)) != shared


def test_a_norm_that_is_a_batch_norm_itself_cannot_become_another() -> None:
    class Itself(RouteNorm, nn.BatchNorm2d):
        def forward(self, x: Tensor, route: Route) -> Tensor:  # noqa: ARG002
            return nn.BatchNorm2d.forward(self, x)

        def for_route(self, route: Route) -> nn.BatchNorm2d:  # noqa: ARG002
            return self

    with pytest.raises(ConfigError, match=r"\(Itself\) are batch norms only: a network with a LayerNorm"):
        Itself(5).normalise_by(nn.LayerNorm(5))
