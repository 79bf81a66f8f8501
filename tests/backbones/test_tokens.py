"""Gates in a network of tokens: heads and groups of channels, the cost of attention, and the compiled network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.networks import DGNET
from ssl_dc.backbones.attention import AttentionProducts
from ssl_dc.backbones.base import Backbone, GatePoint, Masks
from ssl_dc.compiled.backends import BACKENDS
from ssl_dc.compiled.executor import compiled
from ssl_dc.gating.base import Gate, GateFactory, no_gates
from ssl_dc.gating.counting import counted_macs
from ssl_dc.gating.sites import GateSite, Granularity, masked
from ssl_dc.routes import Route

WIDTH, HEADS, PATCH = 12, 3, 4


class Tokens(Backbone):
    """Patches as tokens, one layer of attention with a gate on its heads, the mean."""

    feature_dim = WIDTH

    def __init__(self, gate_factory: GateFactory = no_gates) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.products = AttentionProducts()
        site = GateSite("heads", Granularity.CHANNEL, WIDTH, HEADS, ("qkv", "products", "proj"), axis=-1)
        self.heads = GatePoint(site, gate_factory)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, images: Tensor, route: Route) -> tuple[Tensor, Masks]:
        masks: Masks = {}
        x = self.patches(images).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm(x)).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        attended = self.products(qkv[0], qkv[1], qkv[2]).transpose(1, 2).flatten(2)
        block_input = x.permute(0, 2, 1).unsqueeze(-1)
        x = x + self.proj(self.heads(attended, block_input, route, masks))
        return x.mean(dim=1), masks


class Given(Gate):
    """Opens what it is told to, and keeps what it saw."""

    macs = 0
    opened: Sequence[int] = ()
    saw: tuple[int, ...] = ()

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002
        self.saw = tuple(x.shape)
        return torch.tensor([float(entry in self.opened) for entry in range(HEADS)]).expand(len(x), -1)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def test_attention_is_softmax_of_products_in_float64() -> None:
    queries, keys, values = (torch.randn(2, 3, tokens, 5, dtype=torch.float64) for tokens in (7, 6, 6))
    weights = torch.softmax(queries @ keys.transpose(2, 3) / 5**0.5, dim=-1)
    torch.testing.assert_close(AttentionProducts()(queries, keys, values), weights @ values)
    bias = torch.randn(7, 6, dtype=torch.float64)
    biased = torch.softmax(2 * queries @ keys.transpose(2, 3) + bias, dim=-1) @ values
    torch.testing.assert_close(AttentionProducts(scale=2.0)(queries, keys, values, bias), biased)


def test_the_cost_of_attention_is_what_torch_counts(images: Tensor) -> None:
    backbone = Tokens().eval()
    cost = backbone.cost_model((16, 20))
    tokens = 4 * 5
    assert {layer.name: layer.macs for layer in cost.layers} == {
        "patches": tokens * 3 * PATCH**2 * WIDTH,
        "qkv": tokens * WIDTH * 3 * WIDTH,
        "products": 2 * tokens**2 * WIDTH,
        "proj": tokens * WIDTH**2,
    }
    assert counted_macs(backbone, images[:1], Route.DENSE) == cost.dense_macs


@pytest.mark.parametrize("opened", [[], [1], [0, 2], [0, 1, 2]])
def test_a_shut_head_is_one_that_the_network_has_not(opened: list[int], images: Tensor) -> None:
    backbone = Tokens(Given).eval()
    gate = backbone.heads.gate
    assert isinstance(gate, Given)
    gate.opened = opened
    features, masks = backbone(images, Route.GATED)
    assert gate.saw == (2, WIDTH, 20, 1), "a gate sees tokens as an image of one column"
    kept = [head * (WIDTH // HEADS) + number for head in opened for number in range(WIDTH // HEADS)]
    x = backbone.patches(images).flatten(2).transpose(1, 2)
    normal = backbone.norm(x)
    expected = x + backbone.proj.bias
    for head in opened:
        rows = slice(head * 4, head * 4 + 4)
        q, k, v = (
            F.linear(normal, weight[rows], bias[rows])
            for weight, bias in zip(backbone.qkv.weight.chunk(3), backbone.qkv.bias.chunk(3), strict=True)
        )
        expected = expected + (torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1) @ v) @ backbone.proj.weight[:, rows].T
    torch.testing.assert_close(features, expected.mean(dim=1))
    cost = backbone.cost_model((16, 20))
    macs = {layer.name: layer.macs for layer in cost.layers}
    assert (
        cost.gated_macs(masks).tolist()
        == [macs["patches"] + (sum(macs.values()) - macs["patches"]) * len(kept) / WIDTH] * 2
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_compiled_network_is_the_same(backend: str, images: Tensor) -> None:
    torch.manual_seed(3)
    backbone = Tokens(DGNET.make_gate)
    for _ in range(3):
        backbone(images, Route.GATED)  # so that running statistics are no longer those of a new network
    backbone.eval()
    many = torch.randn(8, 3, 16, 20)
    for route in Route.BOTH:
        executed = compiled(backbone, route, backend=backend)(many)
        with torch.no_grad():
            expected, masks = backbone(many, route)
        torch.testing.assert_close(executed.features, expected, rtol=1e-4, atol=1e-5)
        assert executed.masks.keys() == masks.keys()
        for site, mask in masks.items():
            assert torch.equal(executed.masks[site], mask)
            assert 0 < float(mask.mean()) < 1


@pytest.mark.parametrize(("shape", "axis"), [((2, 6, 3, 3), 1), ((2, 3, 3, 6), 3), ((2, 5, 6), -1), ((2, 6), 1)])
@pytest.mark.parametrize("entries", [1, 2, 6])
def test_an_entry_of_a_mask_acts_on_neighbouring_channels(shape: tuple[int, ...], axis: int, entries: int) -> None:
    activation, mask = torch.randn(shape), (torch.arange(2 * entries) % 3 == 0).float().view(2, entries)
    site = GateSite("site", Granularity.CHANNEL, 1, entries, (), axis)
    seen = masked(activation, mask, site).movedim(axis, 1)
    for image in range(2):
        for channel in range(6):
            opened = mask[image, channel * entries // 6]
            assert torch.equal(seen[image, channel], activation.movedim(axis, 1)[image, channel] * opened)
