"""DGNet's spatial and dual gates: logits, masks over positions, cost and losses, against statements of their own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.macs import blocks_by_hand
from helpers.networks import CONVNET_AIG, DGNET, random_images, resnet
from ssl_dc.gating.base import gates_of, set_threshold
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.gating.dgnet_dual import DGNetDual
from ssl_dc.gating.dgnet_spatial import DGNetSpatial, DGNetSpatialGate
from ssl_dc.gating.options import DGNetDualOptions, DGNetSpatialOptions
from ssl_dc.gating.sites import GateSite, Granularity, masked, over_positions, positions_in_cells
from ssl_dc.routes import Route

SITE = GateSite("block.positions", Granularity.POSITION, 6, 1, ("conv1", "conv2"))
SPATIAL = DGNetSpatial(DGNetSpatialOptions(grid=3))
DUAL = DGNetDual(DGNetDualOptions(grid=3))


def spatial_gate(grid: int = 3) -> DGNetSpatialGate:
    torch.manual_seed(0)
    return DGNetSpatialGate(SITE, DGNetSpatialOptions(grid=grid))


@pytest.mark.parametrize(("grid", "height", "width"), [(3, 9, 6), (4, 10, 7), (3, 2, 5), (1, 4, 4)])
def test_logits_are_a_3x3_convolution_of_the_means_of_the_cells(grid: int, height: int, width: int) -> None:
    gate = spatial_gate(grid)
    x = torch.randn(2, 6, height, width)
    plain, weight = x.double().numpy(), gate.attend.weight.detach().double().numpy()
    means = np.zeros((2, 6, grid + 2, grid + 2))  # with the border of zeros
    for row in range(grid):
        for column in range(grid):
            top, bottom = row * height // grid, math.ceil((row + 1) * height / grid)
            left, right = column * width // grid, math.ceil((column + 1) * width / grid)
            means[:, :, row + 1, column + 1] = plain[:, :, top:bottom, left:right].mean(axis=(2, 3))
    expected = [
        [
            (means[image, :, row : row + 3, column : column + 3] * weight[0]).sum()
            for row in range(grid)
            for column in range(grid)
        ]
        for image in range(2)
    ]
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    assert gate.macs == grid * grid * 6 * 9  # DGNet's get_flops


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), height=st.integers(1, 12), width=st.integers(1, 12))
def test_each_position_has_the_mask_of_its_cell(rows: int, columns: int, height: int, width: int) -> None:
    site = SITE.on_grid(rows, columns)
    assert (site.channels, site.name, site.layers) == (rows * columns, SITE.name, SITE.layers)
    mask = (torch.rand(2, rows * columns) < 0.5).float()
    activation = torch.randn(2, 3, height, width)
    seen = masked(activation, mask, site)
    counts = [0] * (rows * columns)
    for i in range(height):
        for j in range(width):
            cell = math.floor(i * rows / height + 1e-9) * columns + math.floor(j * columns / width + 1e-9)
            counts[cell] += 1
            assert torch.equal(seen[:, :, i, j], activation[:, :, i, j] * mask[:, cell, None])
    assert positions_in_cells((rows, columns), (height, width)) == tuple(counts)
    if height % rows == width % columns == 0:
        nearest = F.interpolate(mask.view(2, 1, rows, columns), size=(height, width), mode="nearest")
        assert torch.equal(over_positions(mask, (rows, columns), (height, width)), nearest)


def open_positions(side: int, grid: int, cells: set[tuple[int, int]]) -> int:
    return sum((i * grid // side, j * grid // side) in cells for i in range(side) for j in range(side))


def side_of(macs: int, a_position: int) -> int:
    side = math.isqrt(macs // a_position)
    assert side * side * a_position == macs
    return side


def gated_by_hand(
    name: str, image: int, grid: int, cells: list[set[tuple[int, int]]], opened: list[tuple[int, int]], dual: bool
) -> int:
    """MACs of a ResNet of width 8 for one image: position by position, given what each block opens."""
    total, blocks = blocks_by_hand(name, 8, image, "cifar")
    for block, own, (first, second) in zip(blocks, cells, opened, strict=True):
        c_in, planes = block["c_in"], block["planes"]
        small = side_of(block["conv2"], 9 * planes * planes)
        total += block["shortcut"] + 9 * c_in * grid * grid
        channel_gate = c_in * (c_in // 4) + (c_in // 4) * planes
        if name == "resnet18":
            total += open_positions(small, grid, own) * (9 * c_in * first + 9 * first * planes)
            total += channel_gate * dual
        else:
            wide = side_of(block["conv1"], c_in * planes)
            total += open_positions(wide, grid, own) * c_in * first
            total += open_positions(small, grid, own) * (9 * first * second + second * 4 * planes)
            total += 2 * channel_gate * dual
    return total


@pytest.mark.parametrize("scheme", [SPATIAL, DUAL], ids=["spatial", "dual"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("image", [20, 32])
def test_cost_is_counted_position_by_position(scheme: DGNetSpatial | DGNetDual, name: str, image: int) -> None:
    cost = resnet(name, gates=scheme.make_gate).cost_model(image)
    _, blocks = blocks_by_hand(name, 8, image, "cifar")
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.4, 1.0):
        masks = {
            site: (torch.rand(1, entries, generator=generator) < share).float() for site, entries in cost.channels.items()
        }
        grids = [mask[0].view(3, 3) for site, mask in masks.items() if site in cost.position_sites]
        cells = [{(int(i), int(j)) for i, j in grid.nonzero()} for grid in grids]
        counts = [int(mask.sum()) for site, mask in masks.items() if site not in cost.position_sites]
        sites = 1 if name == "resnet18" else 2
        pairs = [
            (counts[sites * number], counts[sites * number + sites - 1]) if counts else (block["planes"],) * 2
            for number, block in enumerate(blocks)
        ]
        expected = gated_by_hand(name, image, 3, cells, pairs, scheme is DUAL)
        assert cost.gated_macs(masks).tolist() == [expected]
        assert cost.ratio(masks).item() == pytest.approx(expected / cost.dense_macs, rel=1e-5)
        gates = sum(layer.macs for layer in cost.layers if layer.gate)
        if share == 1:
            assert expected == cost.dense_macs + gates
        if share == 0:
            assert expected == cost.floor_macs


def test_cost_is_that_of_the_published_code_where_the_grid_divides_the_output() -> None:
    """There a block costs 9 b s c C_in + 9 b s C_out c, with s open cells of b positions and c open channels."""
    scheme = DGNetDual(DGNetDualOptions(grid=4))
    cost = resnet(stem_padding=1, gates=scheme.make_gate).cost_model(32)
    masks = {site: (torch.rand(1, entries) < 0.5).float() for site, entries in cost.channels.items()}
    ungated = sum(layer.macs for layer in cost.layers if not layer.sites)
    total, c_in = float(ungated), 8
    for block in range(8):
        c_out, b = 8 * 2 ** (block // 2), (32 // 2 ** (block // 2) // 4) ** 2
        name = f"stages.layer{block // 2 + 1}.{block % 2}"
        s, c = (float(masks[f"{name}.{site}"].sum()) for site in ("positions", "hidden"))
        total += 9 * b * s * c * c_in + 9 * b * s * c_out * c
        c_in = c_out
    assert cost.gated_macs(masks).tolist() == [total]


@pytest.mark.parametrize("scheme", [SPATIAL, DUAL], ids=["spatial", "dual"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_all_open_is_the_dense_route_and_all_shut_the_shortcuts(scheme: DGNetSpatial | DGNetDual, name: str) -> None:
    network = resnet(name, gates=scheme.make_gate).eval()
    images = random_images(2, 20)
    with torch.no_grad():
        set_threshold(network, -1e6)
        features, masks = network(images, Route.GATED)
        assert torch.equal(features, network(images, Route.DENSE)[0])
        assert set(masks) == {gate.site.name for gate in gates_of(network)}
        set_threshold(network, 1e6)
        shut = network(images, Route.GATED)[0]
        alone = resnet(name, gates=CONVNET_AIG.make_gate).eval()
        alone.load_state_dict(network.state_dict(), strict=False)
        set_threshold(alone, 1e6)
        assert torch.equal(shut, alone(images, Route.GATED)[0])


def test_one_decision_masks_the_hidden_activation_and_the_branch() -> None:
    network = resnet(gates=SPATIAL.make_gate).eval()
    seen: list[torch.Tensor] = []
    block = network.stages["layer2"][0]
    block.positions.register_forward_hook(lambda _point, _inputs, output: seen.append(output))
    asked: list[int] = []
    block.positions.gate.register_forward_hook(lambda _gate, inputs, _mask: asked.append(len(inputs[0])))
    with torch.no_grad():
        _, masks = network(random_images(4, 20), Route.GATED)
    mask = masks["stages.layer2.0.positions"]
    assert asked == [4]
    assert len(seen) == 2
    for activation in seen:
        shut = over_positions(mask, (3, 3), activation.shape[2:]) == 0
        assert not bool((activation * shut).any())


def test_spatial_losses_by_hand() -> None:
    cost = CostModel((LayerCost("stem", 100), LayerCost("a", 900, ("s",), cells={"s": (1, 3)})), {"s": 2})
    trace = Trace({"s": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])}, cost)
    losses = DGNetSpatial(DGNetSpatialOptions()).losses(trace, 0.25, progress=0.0)
    ratio = (3 * 100 + 900 * (1 / 4 + 3 / 4 + 1)) / 3 / 1000
    assert set(losses) == {"budget", "bound"}
    assert losses["budget"].item() == pytest.approx(5 * (ratio - 0.25) ** 2, rel=1e-5)
    assert losses["bound"].item() == pytest.approx((4 / 6 - 0.25) ** 2, rel=1e-5)  # p = 1: all distance counts


def test_dual_losses_are_those_of_the_published_code() -> None:
    """A bound around sqrt(t_d) for the channels, and another for the cells, over the blocks."""
    layers = (
        LayerCost("stem", 100),
        LayerCost("a", 600, ("p", "c"), cells={"p": (1, 3)}),
        LayerCost("b", 300, ("q",), cells={"q": (2, 2)}),
    )
    cost = CostModel(layers, {"p": 2, "c": 4, "q": 2})
    masks = {
        "p": torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        "c": torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]]),
        "q": torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    }
    ratio = ((100 + 600 * 3 / 4 * 1 / 4 + 300) + (100 + 600 * 1 / 4 * 3 / 4 + 150)) / 2 / 1000
    p, target = math.exp(-10 * 0.05), math.sqrt(0.09)

    def plain_bound(densities: list[float]) -> float:
        lower = sum(max(0.0, p * target - d) ** 2 for d in densities) / len(densities)
        upper = sum(max(0.0, d - 1 + p - p * target) ** 2 for d in densities) / len(densities)
        return lower + upper

    losses = DGNetDual(DGNetDualOptions(bound=2)).losses(Trace(masks, cost), 0.09, progress=0.05)
    assert set(losses) == {"budget", "bound_channels", "bound_positions"}
    assert losses["budget"].item() == pytest.approx(5 * (ratio - 0.09) ** 2, rel=1e-5)
    assert losses["bound_channels"].item() == pytest.approx(2 * plain_bound([4 / 8]), rel=1e-5)
    assert losses["bound_positions"].item() == pytest.approx(2 * plain_bound([2 / 4, 3 / 4]), rel=1e-5)


def test_each_scheme_gates_its_own_kinds_of_site() -> None:
    kinds = {
        scheme: {gate.site.granularity for gate in gates_of(resnet(gates=scheme.make_gate))}
        for scheme in (SPATIAL, DUAL, DGNET, CONVNET_AIG)
    }
    assert kinds == {
        SPATIAL: {Granularity.POSITION},
        DUAL: {Granularity.CHANNEL, Granularity.POSITION},
        DGNET: {Granularity.CHANNEL},
        CONVNET_AIG: {Granularity.BRANCH},
    }
    assert str(DUAL.granularity) == "channel and position"
