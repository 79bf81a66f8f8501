"""Routes as values: equality, text, and constants to torch.compile, torch.export and DDP."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.encoders.shared import SharedEncoder
from ssl_dc.gating.base import gates_of, set_budgets, set_threshold
from ssl_dc.norms.options import SeparateNormsOptions
from ssl_dc.norms.separate import SeparateNorms
from ssl_dc.routes import Route
from ssl_dc.testing.counterparts import LinearGating, SmallBackbone, random_images
from ssl_dc.testing.two_processes import WORLD, in_two_processes

ROUTES = (Route.DENSE, Route.GATED, Route.at(0.2), Route.at(0.5), Route.at([0.2, 0.9, 0.5, 0.31]))
shares = st.floats(0, 1, exclude_min=True)


def encoder() -> SharedEncoder:
    """An encoder whose gates cost more the larger the budget is."""
    torch.manual_seed(0)
    made = SharedEncoder(
        SharedEncoderOptions(),
        lambda gate_factory: SmallBackbone(SeparateNorms(SeparateNormsOptions()).layer, gate_factory),
        LinearGating(),
    )
    set_budgets(made, [0.2, 0.5, 0.9])
    for row, threshold in enumerate((0.6, 0.0, -0.6)):
        set_threshold(made, threshold, row)
    return made.eval()


def test_a_route_is_a_value() -> None:
    assert Route.at(0.25) == Route.at(0.25) != Route.at(0.5)
    assert Route.at([0.25]) != Route.at(0.25)
    assert len({Route.DENSE, Route.GATED, Route(gated=True), Route.at(0.25), Route.at(0.25)}) == 3
    for route in ROUTES:
        for again in (copy.deepcopy(route), pickle.loads(pickle.dumps(route))):
            assert again == route
            assert hash(again) == hash(route)
    assert (Route.GATED.gated, Route.GATED.budget) == (True, None)
    assert (Route.DENSE.gated, Route.DENSE.budget) == (False, None)
    assert Route.BOTH == (Route.DENSE, Route.GATED)


@given(st.one_of(shares, st.lists(shares, min_size=2, max_size=4)))
def test_a_route_is_read_back_from_its_text(budget: float | list[float]) -> None:
    assert Route.parse(str(Route.at(budget))) == Route.at(budget)


def test_routes_are_written_by_their_names() -> None:
    assert [str(route) for route in ROUTES] == ["dense", "gated", "gated@0.2", "gated@0.5", "gated@0.2,0.9,0.5,0.31"]
    assert [Route.parse(str(route)) for route in ROUTES] == list(ROUTES)


@pytest.mark.parametrize("budget", [0, -0.1, 1.01, math.nan, math.inf, [], [0.5, 0]])
def test_a_budget_outside_its_range_is_refused(budget: float | list[float]) -> None:
    with pytest.raises(ValueError, match="a budget is above 0 and at most 1, not"):
        Route.at(budget)


def test_a_dense_route_has_no_budget() -> None:
    with pytest.raises(ValueError, match="a dense route has no budget"):
        Route(gated=False, budget=0.5)


@pytest.mark.parametrize(
    "text", ["", "open", "Dense", "gated@", "gated@0", "gated@2", "gated@x", "dense@0.5", "gated@0.5,"]
)
def test_a_text_that_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a route is 'dense', 'gated' or 'gated@BUDGET'.*not"):
        Route.parse(text)


def test_the_gates_of_a_route_take_the_thresholds_of_its_budget() -> None:
    net, images = encoder(), random_images(4, 16)
    opened = [
        float(torch.stack([mask.mean() for mask in net(images, Route.at(budget)).masks.values()]).mean())
        for budget in (0.2, 0.35, 0.5, 0.7, 0.9)
    ]
    assert opened == sorted(opened)
    assert opened[0] < opened[-1]
    assert torch.equal(net(images, Route.GATED).features, net(images, Route.at(0.2)).features)


def test_each_image_may_have_a_budget_of_its_own() -> None:
    net, images = encoder(), random_images(4, 16)
    budgets = (0.2, 0.9, 0.5, 0.31)
    together = net(images, Route.at(budgets))
    for number, budget in enumerate(budgets):
        alone = net(images[number : number + 1], Route.at(budget))
        for site, mask in alone.masks.items():
            assert torch.equal(together.masks[site][number], mask[0])
        torch.testing.assert_close(together.features[number], alone.features[0], rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_a_compiled_network_has_a_graph_for_each_route_and_compiles_no_route_twice() -> None:
    net, images = encoder(), random_images(4, 16)
    graphs = []

    def count(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(net, backend=count, fullgraph=True)
    for round_number in range(2):
        for route in (*ROUTES, Route.at(0.7), Route.at(0.31)):
            route = copy.deepcopy(route)
            torch.testing.assert_close(compiled(images, route).features, net(images, route).features)
        if round_number == 0:
            made = len(graphs)
    assert len(graphs) == made
    assert made <= len(ROUTES), "all budgets but the first share a graph that takes the budget as a number"


class OneRoute(nn.Module):
    """What export sees: images to features on a fixed route."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.net, self.route = encoder(), route

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images, self.route).features
        return features


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_network_is_exported_on_a_fixed_route(route: Route, strict: bool) -> None:
    images = random_images(4, 16)
    program = torch.export.export(OneRoute(route), (images,), strict=strict)
    torch.testing.assert_close(program.module()(images), encoder()(images, route).features)


class Views(nn.Module):
    """Sends images by several routes in one forward, as the training loop does."""

    def __init__(self, net: SharedEncoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor, routes: tuple[Route, ...]) -> Tensor:
        return torch.stack([self.net(images, route).features.square().sum() for route in routes]).sum()


def gradients(rank: int) -> dict[str, Tensor]:
    """The gradients of the second of two steps at different budgets, as DDP gives them to one process."""
    net = encoder()
    wrapped = DistributedDataParallel(Views(net), find_unused_parameters=True)
    for budget in (0.3, 0.8):
        net.zero_grad()
        wrapped(random_images(4, 16, seed=rank), (Route.at(budget), Route.DENSE)).backward()
    return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_two_processes_that_train_at_a_budget_have_the_mean_gradient() -> None:
    net = encoder()
    for process in range(WORLD):
        (Views(net)(random_images(4, 16, seed=process), (Route.at(0.8), Route.DENSE)) / WORLD).backward()
    for seen in in_two_processes(gradients):
        for name, p in net.named_parameters():
            if p.grad is not None:
                torch.testing.assert_close(seen[name], p.grad, rtol=1e-4, atol=1e-6)


def test_the_gates_of_a_network_are_asked_for_their_thresholds_once_a_view() -> None:
    net = encoder()
    asked: list[object] = []
    for gate in gates_of(net):
        gate.register_forward_pre_hook(lambda _gate, inputs: asked.append(inputs[1].shape))
    net(random_images(4, 16), Route.at((0.2, 0.3, 0.4, 0.5)))
    assert asked == [(4, 8), (4, 12)]
