"""ResNet-18: shapes, stems, equality with torchvision's, and the gate sites that it declares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers.networks import SHARED, resnet
from ssl_dc.backbones.options import ResNet18Options
from ssl_dc.backbones.resnet import ResNet, ResNet18
from ssl_dc.gating.base import Gate
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.routes import Route

CHANNELS = {stage: 8 * 2 ** (stage - 1) for stage in (1, 2, 3, 4)}


def sides(net: ResNet, image: int) -> tuple[int, list[int]]:
    """Side of the activation after the stem's convolution, and of each stage's input and output."""
    seen: list[int] = []
    first: list[int] = []
    net.conv1.register_forward_hook(lambda _m, _a, out: first.append(out.shape[-1]))
    net.pool.register_forward_hook(lambda _m, _a, out: seen.append(out.shape[-1]))
    for blocks in net.stages.values():
        blocks[-1].register_forward_hook(lambda _m, _a, out: seen.append(out.shape[-1]))
    net(torch.randn(2, 3, image, image), Route.DENSE)
    return first[0], seen


@pytest.mark.parametrize(
    ("stem", "padding", "image", "after_conv", "stages"),
    [
        ("cifar", None, 32, 34, [34, 34, 17, 9, 5]),
        ("cifar", 1, 32, 32, [32, 32, 16, 8, 4]),
        ("imagenet", None, 96, 48, [24, 24, 12, 6, 3]),
        ("imagenet", None, 64, 32, [16, 16, 8, 4, 2]),
    ],
)
def test_sizes_of_the_stages(stem: str, padding: int | None, image: int, after_conv: int, stages: list[int]) -> None:
    assert sides(resnet(stem=stem, stem_padding=padding), image) == (after_conv, stages)


@pytest.mark.parametrize(
    ("stem", "kernel", "stride", "padding", "pooled"),
    [("cifar", 3, 1, 2, False), ("imagenet", 7, 2, 3, True)],
)
def test_stems_of_the_method(stem: str, kernel: int, stride: int, padding: int, pooled: bool) -> None:
    net = resnet(stem=stem)
    conv = net.conv1
    assert (conv.kernel_size, conv.stride, conv.padding) == ((kernel,) * 2, (stride,) * 2, (padding,) * 2)
    assert isinstance(net.pool, nn.MaxPool2d) == pooled


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("stem", ["cifar", "imagenet", "strided"])
def test_features_are_eight_times_the_width(width: int, stem: str) -> None:
    net = resnet(width=width, stem=stem)
    features, masks = net(torch.randn(3, 3, 40, 40), Route.DENSE)
    assert net.feature_dim == 8 * width
    assert features.shape == (3, 8 * width)
    assert masks == {}


def test_default_width_gives_512_features() -> None:
    assert ResNet18Options().width == 64
    assert resnet(width=64).feature_dim == 512


def test_features_are_the_mean_over_positions_of_the_last_block() -> None:
    net = resnet()
    last: list[Tensor] = []
    net.stages["layer4"][-1].register_forward_hook(lambda _m, _a, out: last.append(out))
    features, _ = net(torch.randn(2, 3, 32, 32), Route.DENSE)
    torch.testing.assert_close(features, last[0].flatten(2).sum(dim=2) / 25)


def test_gate_sites_are_declared_for_every_block() -> None:
    declared: list[GateSite] = []

    def factory(site: GateSite) -> Gate | None:
        declared.append(site)
        return None

    net = ResNet18(ResNet18Options(width=8), SHARED.layer, factory)
    assert [point.site for point in net.gate_points()] == declared
    assert len({site.name for site in declared}) == len(declared) == 24
    sites = {site.name: site for site in declared}
    c_in = 8
    for stage, planes in CHANNELS.items():
        for index in range(2):
            block = f"stages.layer{stage}.{index}"
            layers = (f"{block}.conv1", f"{block}.conv2")
            expected = {
                "positions": GateSite(f"{block}.positions", Granularity.POSITION, c_in, 1, layers),
                "hidden": GateSite(f"{block}.hidden", Granularity.CHANNEL, c_in, planes, layers),
                "branch": GateSite(f"{block}.branch", Granularity.BRANCH, c_in, 1, layers),
            }
            for kind, site in expected.items():
                assert sites[f"{block}.{kind}"] == site
            c_in = planes


def test_gate_sites_name_modules_that_exist() -> None:
    net = resnet()
    for point in net.gate_points():
        assert net.get_submodule(point.site.name) is point
        first, second = (net.get_submodule(layer) for layer in point.site.layers)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.in_channels == point.site.in_channels
        if point.site.granularity is Granularity.CHANNEL:
            assert first.out_channels == second.in_channels == point.site.channels


class Constant(Gate):
    """A gate that returns the mask it was given."""

    def __init__(self, site: GateSite, mask: Tensor) -> None:
        super().__init__(site)
        self.mask = mask

    @property
    def macs(self) -> int:
        return 1

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:  # noqa: ARG002
        return self.mask.to(x.dtype)


def test_shut_branch_leaves_the_shortcut() -> None:
    shut = torch.tensor([[1.0], [0.0]])

    def factory(site: GateSite) -> Gate | None:
        return Constant(site, shut) if site.granularity is Granularity.BRANCH else None

    net = ResNet18(ResNet18Options(width=8, stem="cifar"), SHARED.layer, factory).eval()
    block = net.stages["layer2"][0]
    x = torch.randn(2, 8, 6, 6)
    masks: dict[str, Tensor] = {}
    gated, dense = block(x, Route.GATED, masks), block(x, Route.DENSE, {})
    assert torch.equal(masks["stages.layer2.0.branch"], shut)
    assert torch.equal(gated[0], dense[0])
    assert torch.equal(gated[1], torch.relu(block.shortcut(x, Route.GATED))[1])
    assert not torch.allclose(gated[1], dense[1])
