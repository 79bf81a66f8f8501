"""ResNet-18, -34 and -50: cost, gate sites, and equality with torchvision's."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from helpers.macs import DEPTHS, blocks_by_hand, branch_gated_by_hand, dense_by_hand
from helpers.networks import CONVNET_AIG, DGNET, RESNETS, resnet
from ssl_dc.backbones.base import Backbone
from ssl_dc.backbones.resnet import Bottleneck
from ssl_dc.gating.base import gates_of, no_gates
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.options import SharedNormsOptions
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.plugins.registry import registry
from ssl_dc.routes import Route

FAMILY = sorted(RESNETS)
SCHEMES = {"dgnet": DGNET.make_gate, "convnet_aig": CONVNET_AIG.make_gate}


def counted_by_torch(net: nn.Module, image: int, device: str = "meta") -> int:
    """MACs of the dense route for one image, by torch's own counter."""
    x = torch.empty(1, 3, image, image, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.to(device).eval()(x, Route.DENSE)
    return counter.get_total_flops() // 2


# Cost of the dense network


@pytest.mark.parametrize(
    ("name", "macs"), [("resnet18", 1_813_561_344), ("resnet34", 3_663_249_408), ("resnet50", 4_087_136_256)]
)
def test_dense_cost_at_224_pixels(name: str, macs: int) -> None:
    net = resnet(name, width=64, stem="imagenet")
    cost = net.cost_model(224)
    assert cost.dense_macs == dense_by_hand(name, 64, 224, "imagenet") == macs
    assert cost.dense_macs == counted_by_torch(net, 224)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(("stem", "image"), [("cifar", 32), ("imagenet", 96), ("imagenet", 61)])
def test_dense_cost_at_other_sizes(name: str, stem: str, image: int) -> None:
    net = resnet(name, width=16, stem=stem)
    assert net.cost_model(image).dense_macs == dense_by_hand(name, 16, image, stem) == counted_by_torch(net, image)


@pytest.mark.parametrize("name", registry().names("backbone"))
def test_dense_cost_of_every_backbone_is_that_of_torchs_counter(name: str) -> None:
    part = registry().find("backbone", name)
    net: Backbone = part.target()(part.options_model()(), SharedNorms(SharedNormsOptions()).layer, no_gates)
    assert net.cost_model(64).dense_macs == counted_by_torch(net, 64) > 0


# Shapes


@pytest.mark.parametrize(("name", "factor"), [("resnet18", 8), ("resnet34", 8), ("resnet50", 32)])
@pytest.mark.parametrize("width", [4, 8])
def test_width_of_the_features(name: str, factor: int, width: int) -> None:
    net = resnet(name, width=width)
    features, masks = net(torch.randn(2, 3, 16, 16), Route.DENSE)
    assert net.feature_dim == factor * width
    assert features.shape == (2, factor * width)
    assert masks == {}


@pytest.mark.parametrize(
    ("name", "training"), [("resnet18", False), ("resnet18", True), ("resnet34", False), ("resnet50", False)]
)
def test_equals_torchvision_without_classifier(name: str, training: bool) -> None:
    reference = getattr(torchvision.models, name)(weights=None)
    reference.fc = nn.Identity()
    torch.manual_seed(0)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.5)
    net = resnet(name, width=64, stem="imagenet")
    theirs, ours = reference.state_dict(), net.state_dict()
    assert [tuple(v.shape) for v in theirs.values()] == [tuple(v.shape) for v in ours.values()]
    net.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features, _ = net.train(training)(x, Route.DENSE)
        expected = reference.train(training)(x)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


# Gate sites


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_gated_route_with_open_masks_equals_dense_route_bit_for_bit(name: str, training: bool, scheme: str) -> None:
    net = resnet(name, width=4, gates=SCHEMES[scheme]).train(training)
    shut = 0

    def force_open(_gate: nn.Module, _inputs: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        nonlocal shut
        shut += int((mask == 0).sum())
        return torch.ones_like(mask)

    for gate in gates_of(net):
        gate.register_forward_hook(force_open)
    x = torch.randn(4, 3, 12, 12)
    gated, masks = net(x, Route.GATED)
    dense, none = net(x, Route.DENSE)
    assert len(masks) == len(gates_of(net)) == sum(DEPTHS[name]) * (2 if (name, scheme) == ("resnet50", "dgnet") else 1)
    assert not none
    assert shut > 0 or scheme == "convnet_aig", "the gates were open anyway"
    assert torch.equal(gated, dense)


def test_bottleneck_declares_two_channel_sites_a_branch_site_and_a_position_site() -> None:
    net = resnet("resnet50", width=8)
    sites = {point.site.name: point.site for point in net.gate_points()}
    assert len(sites) == 4 * 16
    _, blocks = blocks_by_hand("resnet50", 8, 32, "cifar")
    names = [f"stages.layer{stage + 1}.{index}" for stage in range(4) for index in range(DEPTHS["resnet50"][stage])]
    for name, block in zip(names, blocks, strict=True):
        c_in, planes = block["c_in"], block["planes"]
        conv1, conv2, conv3 = (f"{name}.conv{number}" for number in (1, 2, 3))
        channel, branch = Granularity.CHANNEL, Granularity.BRANCH
        assert sites[f"{name}.reduced"] == GateSite(f"{name}.reduced", channel, c_in, planes, (conv1, conv2))
        assert sites[f"{name}.hidden"] == GateSite(f"{name}.hidden", channel, c_in, planes, (conv2, conv3))
        assert sites[f"{name}.branch"] == GateSite(f"{name}.branch", branch, c_in, 1, (conv1, conv2, conv3))
        positions = GateSite(f"{name}.positions", Granularity.POSITION, c_in, 1, (conv1, conv2, conv3))
        assert sites[f"{name}.positions"] == positions
        assert all(isinstance(net.get_submodule(layer), nn.Conv2d) for layer in (conv1, conv2, conv3))


def shares(blocks: list[dict[str, int]]) -> dict[str, list[tuple[int, int]]]:
    """Open channels of the two sites of each block, for some made-up images."""
    planes = [block["planes"] for block in blocks]
    return {
        "open": [(p, p) for p in planes],
        "shut": [(0, 0)] * len(planes),
        "only reduced": [(p, 0) for p in planes],
        "only hidden": [(0, p) for p in planes],
        "one of each": [(1, 1) for _ in planes],
        "uneven": [((3 * i) % (p + 1), (5 * i + 2) % (p + 1)) for i, p in enumerate(planes)],
    }


def test_channel_gated_bottlenecks_by_hand() -> None:
    net = resnet("resnet50", width=8, gates=SCHEMES["dgnet"])
    cost = net.cost_model(20)
    first, blocks = blocks_by_hand("resnet50", 8, 20, "cifar")
    rows = shares(blocks)
    expected = []
    for opened in rows.values():
        total = first
        for block, (reduced, hidden) in zip(blocks, opened, strict=True):
            c_in, planes = block["c_in"], block["planes"]
            total += block["conv1"] // planes * reduced
            total += block["conv2"] // planes // planes * reduced * hidden  # both sites
            total += block["conv3"] // planes * hidden
            total += block["shortcut"]
            total += 2 * (c_in * (c_in // 4) + c_in // 4 * planes)  # two gates
        expected.append(total)
    masks = {}
    names = [point.site.name for point in net.gate_points() if point.gate is not None]
    assert list(cost.channels) == names
    for number, (name, channels) in enumerate(cost.channels.items()):
        mask = torch.zeros(len(rows), channels)
        for image, opened in enumerate(rows.values()):
            mask[image, torch.randperm(channels)[: opened[number // 2][number % 2]]] = 1
        masks[name] = mask
    torch.testing.assert_close(cost.gated_macs(masks), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-3)
    assert cost.floor_macs == expected[1]
    torch.testing.assert_close(cost.ratio(masks).double(), cost.gated_macs(masks) / cost.dense_macs, rtol=1e-5, atol=0)


def test_branch_gated_bottlenecks_by_hand() -> None:
    cost = resnet("resnet50", gates=SCHEMES["convnet_aig"]).cost_model(20)
    rows = [[1] * 16, [0] * 16, [i % 2 for i in range(16)], [int(i % 3 == 0) for i in range(16)]]
    expected = [branch_gated_by_hand("resnet50", 8, 20, "cifar", row) for row in rows]
    masks = {site: torch.tensor([[float(row[block])] for row in rows]) for block, site in enumerate(cost.channels)}
    assert cost.gated_macs(masks).tolist() == expected
    assert cost.floor_macs == expected[1]


def test_mask_zeroes_exactly_the_hidden_channels_of_a_bottleneck() -> None:
    net = resnet("resnet50", width=8, gates=SCHEMES["dgnet"]).eval()
    seen: dict[str, Tensor] = {}
    blocks = {name: module for name, module in net.named_modules() if isinstance(module, Bottleneck)}
    for name, block in blocks.items():
        for norm, conv, site in [("norm1", "conv2", "reduced"), ("norm2", "conv3", "hidden")]:
            block.get_submodule(norm).register_forward_hook(
                lambda _m, _a, out, key=f"{name}.{site}": seen.update({f"{key} before": torch.relu(out)})
            )
            block.get_submodule(conv).register_forward_pre_hook(
                lambda _m, args, key=f"{name}.{site}": seen.update({f"{key} after": args[0]})
            )
    with torch.no_grad():
        _, masks = net(torch.randn(3, 3, 12, 12), Route.GATED)
    assert len(masks) == 32
    for name, site in product(blocks, ("reduced", "hidden")):
        key = f"{name}.{site}"
        assert torch.equal(seen[f"{key} after"], seen[f"{key} before"] * masks[key][:, :, None, None])
    every = torch.cat([mask.flatten() for mask in masks.values()])
    assert set(every.tolist()) == {0.0, 1.0}


def test_rows_and_columns_of_shut_channels_of_a_bottleneck_are_not_needed() -> None:
    net = resnet("resnet50", width=8, gates=SCHEMES["dgnet"]).eval()
    x = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        before, masks = net(x, Route.GATED)
        for name, block in net.named_modules():
            if isinstance(block, Bottleneck):
                reduced, hidden = (masks[f"{name}.{site}"][0] == 0 for site in ("reduced", "hidden"))
                block.conv1.weight[reduced] = 1e3
                block.conv2.weight[:, reduced] = -1e3
                block.conv2.weight[hidden] = 1e3
                block.conv3.weight[:, hidden] = -1e3
        after, _ = net(x, Route.GATED)
        dense, _ = net(x, Route.DENSE)
    assert torch.equal(before, after)
    assert not torch.allclose(before, dense)
