"""The cost of ResNet-18, dense and gated, against the method's tables and two other counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from helpers.macs import channel_gated_by_hand, dense_by_hand
from helpers.networks import DGNET, resnet
from ssl_dc.backbones.resnet import ResNet
from ssl_dc.gating.base import gates_of
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.routes import Route


def network(width: int, stem: str, stem_padding: int | None = None) -> ResNet:
    return resnet(width=width, stem=stem, stem_padding=stem_padding, gates=DGNET.make_gate)


def masks_with(opened: list[list[int]], cost: CostModel) -> dict[str, Tensor]:
    """For each image (a row of opened) and each block (a column) that many random open channels."""
    masks = {}
    for block, (site, channels) in enumerate(cost.channels.items()):
        mask = torch.zeros(len(opened), channels)
        for image, counts in enumerate(opened):
            mask[image, torch.randperm(channels)[: counts[block]]] = 1
        masks[site] = mask
    return masks


@pytest.fixture(scope="module")
def published() -> CostModel:
    return network(64, "cifar").cost_model(32)


@pytest.mark.parametrize(
    ("stem", "padding", "image", "macs"),
    [
        ("cifar", None, 32, 703_560_448),
        ("cifar", 2, 32, 703_560_448),
        ("cifar", 1, 32, 555_417_600),
        ("imagenet", None, 96, 333_103_104),
        ("imagenet", None, 224, 1_813_561_344),
    ],
)
def test_dense_cost_is_the_table_of_the_method(stem: str, padding: int | None, image: int, macs: int) -> None:
    assert network(64, stem, padding).cost_model(image).dense_macs == macs
    assert resnet(width=64, stem=stem, stem_padding=padding).cost_model(image).dense_macs == macs
    assert dense_by_hand("resnet18", 64, image, stem, padding) == macs


@pytest.mark.parametrize(
    ("stem", "image", "floor"),
    [("cifar", 32, 0.01498), ("imagenet", 96, 0.07642), ("imagenet", 224, 0.07583)],
)
def test_lowest_possible_ratio(stem: str, image: int, floor: float) -> None:
    cost = network(64, stem).cost_model(image)
    assert round(cost.floor_ratio, 5) == floor
    assert cost.floor_macs == channel_gated_by_hand(64, image, stem, [0] * 8)
    shut = {site: torch.zeros(1, channels) for site, channels in cost.channels.items()}
    assert cost.ratio(shut).item() == pytest.approx(cost.floor_ratio, rel=1e-6)


def test_gated_cost_of_hand_made_masks(published: CostModel) -> None:
    opened = [
        [64, 64, 128, 128, 256, 256, 512, 512],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1],
        [10, 20, 31, 47, 5, 200, 511, 3],
        [64, 0, 128, 0, 256, 0, 512, 0],
    ]
    expected = [channel_gated_by_hand(64, 32, "cifar", row) for row in opened]
    assert published.gated_macs(masks_with(opened, published)).tolist() == expected


def test_one_channel_of_the_first_block_costs_what_it_should(published: CostModel) -> None:
    none, one = [0] * 8, [1] + [0] * 7
    macs = published.gated_macs(masks_with([none, one], published))
    assert (macs[1] - macs[0]).item() == 2 * 9 * 34 * 34 * 64


def test_open_gated_network_costs_the_dense_one_and_its_gates(published: CostModel) -> None:
    masks = {site: torch.ones(1, channels) for site, channels in published.channels.items()}
    gates = sum(c // 4 * (c + k) for c, k in [(64, 64), (64, 64), (64, 128), (128, 128)])
    gates += sum(c // 4 * (c + k) for c, k in [(128, 256), (256, 256), (256, 512), (512, 512)])
    assert published.gated_macs(masks).item() == 703_560_448 + gates


@pytest.mark.parametrize("stem", ["cifar", "imagenet", "strided"])
def test_width_32_at_40_pixels_by_hand(stem: str) -> None:
    cost = network(32, stem).cost_model(40)
    opened = [[32, 7, 64, 1, 0, 99, 256, 13], [0, 32, 5, 64, 128, 1, 2, 255]]
    assert cost.dense_macs == dense_by_hand("resnet18", 32, 40, stem)
    expected = [channel_gated_by_hand(32, 40, stem, row) for row in opened]
    assert cost.gated_macs(masks_with(opened, cost)).tolist() == expected


@settings(max_examples=6)
@given(
    width=st.sampled_from([4, 8, 12]),
    image=st.integers(16, 41),
    stem=st.sampled_from(["cifar", "imagenet", "strided"]),
    padding=st.sampled_from([None, 0, 1]),
)
def test_cost_equals_torch_flop_counter(width: int, image: int, stem: str, padding: int | None) -> None:
    net = network(width, stem, padding).eval()
    cost = net.cost_model(image)
    x = torch.randn(2, 3, image, image)
    with torch.no_grad():
        with FlopCounterMode(display=False) as dense:
            net(x, Route.DENSE)
        with FlopCounterMode(display=False) as gated:
            _, masks = net(x, Route.GATED)
    assert cost.dense_macs == dense.get_total_flops() // 2 // 2
    # nothing is skipped yet, so that the gated route runs the dense network and its gates
    everything_open = {site: torch.ones_like(mask) for site, mask in masks.items()}
    assert cost.gated_macs(everything_open)[0].item() == gated.get_total_flops() // 2 // 2


def test_gate_declares_the_macs_that_are_counted() -> None:
    for gate in gates_of(network(16, "cifar").eval()):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            gate(torch.randn(1, gate.squeeze.in_channels, 5, 5), gate.thresholds[0])
        assert gate.macs == counter.get_total_flops() // 2 > 0


def test_ratio_is_gated_over_dense(published: CostModel) -> None:
    opened = [[10, 20, 31, 47, 5, 200, 511, 3], [64, 0, 128, 0, 256, 0, 512, 0], [0] * 8]
    masks = masks_with(opened, published)
    ratio = published.ratio(masks)
    assert ratio.dtype is torch.float32
    assert ratio.shape == (3,)
    torch.testing.assert_close(ratio.double(), published.gated_macs(masks) / 703_560_448, rtol=1e-6, atol=0)
    trace = Trace(masks, published)
    assert torch.equal(trace.ratio(), ratio)
    assert trace.macs().tolist() == [channel_gated_by_hand(64, 32, "cifar", row) for row in opened]


def test_ratio_of_half_precision_masks_is_not_rounded(published: CostModel) -> None:
    opened = [[63, 61, 127, 125, 255, 253, 511, 509]]
    masks = masks_with(opened, published)
    half = {site: mask.to(torch.bfloat16) for site, mask in masks.items()}
    assert published.ratio(half).item() == published.ratio(masks).item()
    assert published.gated_macs(half).item() == channel_gated_by_hand(64, 32, "cifar", opened[0])


def test_ratio_is_differentiable_with_the_price_of_a_channel_as_gradient(published: CostModel) -> None:
    masks = {site: torch.ones(2, channels, requires_grad=True) for site, channels in published.channels.items()}
    published.ratio(masks).mean().backward()
    first, last = masks["stages.layer1.0.hidden"], masks["stages.layer4.1.hidden"]
    assert first.grad is not None
    assert last.grad is not None
    price_of_first = 9 * 34 * 34 * (64 + 64) / 703_560_448
    price_of_last = 9 * 5 * 5 * (512 + 512) / 703_560_448
    torch.testing.assert_close(first.grad, torch.full((2, 64), price_of_first / 2), rtol=1e-5, atol=0)
    torch.testing.assert_close(last.grad, torch.full((2, 512), price_of_last / 2), rtol=1e-5, atol=0)


def test_densities_are_means_over_the_batch(published: CostModel) -> None:
    opened = [[64, 32, 0, 0, 0, 0, 0, 0], [0, 32, 0, 64, 0, 0, 0, 128]]
    densities = Trace(masks_with(opened, published), published).densities()
    assert [d.item() for d in densities.values()] == [0.5, 0.5, 0, 0.25, 0, 0, 0, 0.125]


def test_layer_under_two_sites_costs_the_product_of_their_open_shares() -> None:
    cost = CostModel((LayerCost("a", 10), LayerCost("b", 1000, ("s", "t"))), {"s": 4, "t": 2})
    masks = {"s": torch.tensor([[1.0, 0, 0, 0]]), "t": torch.tensor([[1.0, 0]])}
    assert cost.gated_macs(masks).item() == 10 + 1000 / 4 / 2
    assert cost.ratio(masks).item() == pytest.approx(135 / 1010)
    assert cost.floor_macs == 10


def test_counting_changes_neither_mode_nor_statistics() -> None:
    net = network(8, "cifar")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.cost_model(32)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
