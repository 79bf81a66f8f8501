"""Masks of attention heads and of groups of channels: what they shut is not computed, and the rest is what it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import compiled
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.plan_size import CountedRun, macs_of, parameters_of
from ssl_dc.compiled.static import make_static
from ssl_dc.compiled.steps.attention import Attention
from ssl_dc.compiled.steps.gates import Decide, Mask
from ssl_dc.compiled.steps.layers import Conv, Linear
from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.routes import Route

BACKENDS = ("native", "torch")
HEADS, SIZE, TOKENS = 3, 4, 16
WIDTH = HEADS * SIZE


class Chosen(Gate):
    """Opens the entries whose channels have a mean above the threshold, for each image others."""

    macs = 0

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))
        return (means[:, : len(threshold)] > threshold).float()


Heads = Callable[["Attending", Tensor], tuple[Tensor, Tensor, Tensor]]


def by_part(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one layer, each of all heads."""
    n, t, _ = x.shape
    parts = network.qkv(x).reshape(n, t, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
    return parts[0], parts[1], parts[2]


def by_head(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same layer with a head's queries, keys and values side by side."""
    n, t, _ = x.shape
    parts = network.qkv(x).view(n, t, HEADS, 3 * SIZE).transpose(1, 2).chunk(3, dim=-1)
    return parts[0], parts[1], parts[2]


def apart(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three layers, and a norm of each head's queries."""
    n, t, _ = x.shape
    q, k, v = (layer(x).reshape(n, t, HEADS, SIZE).transpose(1, 2) for layer in (network.q, network.k, network.v))
    return network.of_head(q), F.gelu(k), v


def read_twice(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`by_part`, but something else reads the queries, too."""
    q, k, v = by_part(network, x)
    return q, k + q.mean(), v


def mixed(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`by_part`, but the values of a head are those of the head before."""
    q, k, v = by_part(network, x)
    return q, k, v[:, [2, 0, 1]]


def one_for_all(network: Attending, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All heads read the queries of one layer as queries and as keys."""
    q, _, v = apart(network, x)
    return q, q, v


class Attending(Backbone):
    """A patch embedding and a block of attention, with a gate for each head.

    Args:
        heads: Makes queries, keys and values.
        biased: Whether attention has a bias.
    """

    feature_dim = WIDTH

    def __init__(self, heads: Heads, biased: bool = False) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.heads, self.biased = heads, biased
        self.embed = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.of_head = nn.LayerNorm(SIZE)
        self.products = AttentionProducts()
        self.register_buffer("bias", torch.zeros(1, HEADS, TOKENS, TOKENS))
        layers = ("qkv",) if heads in (by_part, by_head, mixed) else ("q", "k", "v")
        site = GateSite("heads", Granularity.CHANNEL, WIDTH, HEADS, (*layers, "products", "proj"), axis=2)
        self.point = GatePoint(site, Chosen)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        patches = self.embed(images)
        x = patches.flatten(2).transpose(1, 2)
        q, k, v = self.heads(self, x)
        bias = (self.bias,) if self.biased else ()
        y = self.products(q, k, v, *bias).transpose(1, 2).reshape(x.shape)
        x = x + self.proj(self.point(y, patches, route, masks))
        return x.mean(dim=1), masks


class Grouped(Backbone):
    """A bottleneck of grouped convolutions and squeeze-and-excitation, with a gate for each pair of groups."""

    feature_dim = 8

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 32, 3, padding=1, groups=8)
        layers = ("conv1", "conv2", "squeeze", "excite", "conv3")
        self.point = GatePoint(GateSite("groups", Granularity.CHANNEL, 8, 4, layers), Chosen)
        self.squeeze, self.excite = nn.Conv2d(32, 4, 1), nn.Conv2d(4, 32, 1)
        self.conv3 = nn.Conv2d(32, 8, 1)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        x = torch.relu(self.stem(images))
        y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        y = self.point(y, x, route, masks)
        y = y * self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return (x + self.conv3(y)).mean(dim=(2, 3)), masks


NETWORKS: dict[str, Callable[[], Backbone]] = {
    "by part": lambda: Attending(by_part),
    "by head": lambda: Attending(by_head),
    "apart": lambda: Attending(apart),
    "mixed": lambda: Attending(mixed),
    "grouped": Grouped,
}


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Backbone:
    """A network whose gates open about half of their entries, for each image others."""
    made = NETWORKS[request.param]().eval()
    (point,) = made.gate_points()
    seen: list[Tensor] = []
    handle = point.gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        made(images(8), Route.GATED)
    handle.remove()
    means = seen[0].mean(dim=(2, 3)).sort(dim=0).values
    point.gate.thresholds.copy_(means[3:5].mean(dim=0)[: point.site.channels])  # as far from any as can be
    return made


def set_thresholds(network: Backbone, value: float) -> None:
    for point in network.gate_points():
        point.gate.thresholds.fill_(value)


def assert_near(features: Tensor, expected: Tensor) -> None:
    assert float((features - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@torch.no_grad()
def test_same_as_the_reference(network: Backbone, backend: str) -> None:
    executor = compiled(network, Route.GATED, backend=backend)
    assert executor.sites_that_save_nothing == []
    for some in (images(1), images(8)):
        expected, masks = network(some, Route.GATED)
        executed = executor(some)
        assert_near(executed.features, expected)
        assert {site: mask.tolist() for site, mask in executed.masks.items()} == {s: m.tolist() for s, m in masks.items()}
    assert len(masks[executor.plan.sites[0].name].unique(dim=0)) > 2
    again = pickle.loads(pickle.dumps(executor))
    assert torch.equal(again(images(8)).features, executed.features)
    assert_near(executor.with_threads(2)(images(8)).features, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threshold", [-1e9, 1e9], ids=["all open", "all shut"])
@torch.no_grad()
def test_all_open_and_all_shut(network: Backbone, backend: str, threshold: float) -> None:
    set_thresholds(network, threshold)
    executed = compiled(network, Route.GATED, backend=backend)(images(2))
    assert_near(executed.features, network(images(2), Route.GATED)[0])
    assert {float(mask.mean()) for mask in executed.masks.values()} == {float(threshold < 0)}


@torch.no_grad()
def test_what_is_computed_is_what_the_cost_model_counts(network: Backbone) -> None:
    plan = fuse(capture(network, Route.GATED))
    cost = network.cost_model(16)
    for image in images(8).split(1):
        run = CountedRun(plan)
        run(image)
        assert run.macs == int(cost.gated_macs(run.masks))
    assert macs_of(plan, 16) == cost.dense_macs


@torch.no_grad()
def test_what_is_shut_is_not_read(network: Backbone) -> None:
    """The outputs of the layer before a shut head or group may be anything."""
    image = images(1)
    expected, masks = network(image, Route.GATED)
    (mask,) = masks.values()
    assert 0 < int(mask.sum()) < mask.numel()
    poisoned = copy.deepcopy(network)
    layer = poisoned.conv1 if isinstance(poisoned, Grouped) else poisoned.proj
    span = layer.weight.shape[0 if isinstance(poisoned, Grouped) else 1] // mask.shape[1]
    shut = (mask[0] == 0).repeat_interleave(span)
    if isinstance(poisoned, Grouped):
        layer.weight[shut] = torch.nan
    else:
        layer.weight[:, shut] = torch.nan
    for backend in BACKENDS:
        assert_near(compiled(poisoned, Route.GATED, backend=backend)(image).features, expected)


@torch.no_grad()
def test_a_cut_at_the_masks_of_one_image_is_the_gated_route_of_that_image(network: Backbone) -> None:
    expected, masks = network(images(1), Route.GATED)
    plan = make_static(fuse(capture(network, Route.GATED)), {site: mask[0] for site, mask in masks.items()}, 0.5)
    assert not any(isinstance(step, Decide) for step in plan.steps)
    static = PlanNetwork(plan)
    assert_near(static(images(1)), expected)
    assert_near(static(images(5))[:1], expected)
    assert macs_of(plan, 16) == int(network.cost_model(16).gated_macs(masks))
    assert parameters_of(plan) == sum(parameter.numel() for parameter in static.parameters())


@pytest.mark.parametrize(("multiple", "entries"), [(1, 1), (4, 1), (8, 2), (16, 4), (32, 4)])
def test_a_static_network_keeps_whole_groups(multiple: int, entries: int) -> None:
    """An entry stands for 4 channels of conv1, and for 8 of conv2 in 2 groups; there are 4 entries."""
    plan = fuse(capture(Grouped().eval(), Route.GATED))
    static = make_static(plan, {"groups": torch.tensor([0.1, 0.9, 0.2, 0.3])}, 0.5, multiple=multiple)
    layers = {step.layer: step for step in static.steps if isinstance(step, Conv)}
    assert len(layers["conv1"].weight) == 4 * entries
    assert len(layers["conv2"].weight) == layers["conv3"].weight.shape[1] == 8 * entries
    assert layers["conv2"].groups == 2 * entries


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [read_twice, one_for_all])
@torch.no_grad()
def test_attention_of_another_kind_is_computed_whole(backend: str, heads: Heads) -> None:
    network = Attending(heads).eval()
    executor = compiled(network, Route.GATED, backend=backend)
    assert executor.sites_that_save_nothing == ["heads"]
    assert_near(executor(images(3)).features, network(images(3), Route.GATED)[0])


@torch.no_grad()
def test_attention_with_a_bias_is_computed_whole() -> None:
    network = Attending(by_part, biased=True).eval()
    executor = compiled(network, Route.GATED, backend="torch")
    assert executor.sites_that_save_nothing == ["heads"]
    assert_near(executor(images(3)).features, network(images(3), Route.GATED)[0])
    with pytest.raises(ssl_dc.RunError, match="no layer takes this mask over"):
        make_static(executor.plan, {"heads": torch.ones(HEADS)}, 0.5)


def test_what_a_plan_takes_over() -> None:
    plan = fuse(capture(NETWORKS["by part"]().eval(), Route.GATED))
    layers = {step.layer: step for step in plan.steps if isinstance(step, Linear)}
    assert (layers["qkv"].out_site, layers["qkv"].out_span) == ("heads", 3 * SIZE)
    assert (layers["proj"].in_site, layers["proj"].in_span) == ("heads", SIZE)
    assert sum(isinstance(step, Attention) for step in plan.steps) == 1
    assert not any(isinstance(step, Mask) for step in plan.steps)


def test_int8_refuses_groups() -> None:
    with pytest.raises(ssl_dc.RunError, match=r"int8 cannot compute .*groups"):
        compiled(Grouped().eval(), Route.GATED, precision="int8", calibration=images(2))
