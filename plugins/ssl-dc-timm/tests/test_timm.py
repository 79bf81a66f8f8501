"""timm's networks as backbones: the same features as timm's, the right cost, sites where the blocks allow them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_timm.backbone import Timm, create
from ssl_dc_timm.options import TimmOptions
from ssl_dc_timm.strided import SkippingConv, avoid_unsafe_convolutions

torch.set_num_threads(1)

WITH_SITES = ["resnet10t", "resnet26", "seresnext26d_32x4d"]
WITHOUT_SITES = ["mobilenetv3_small_050", "convnext_atto"]

test_timm_basic_blocks = conformance("backbone", "timm", settings={"model": "resnet10t"})
test_timm_bottlenecks = conformance("backbone", "timm", settings={"model": "resnet14t"})
test_timm_without_sites = conformance("backbone", "timm", settings={"model": "mobilenetv3_small_050"})


class OneNorm(ssl_dc.RouteNorm):
    """One batch norm, which keeps note of where it stands and of the routes that it ran."""

    def __init__(self, channels: int, position: ssl_dc.Position) -> None:
        super().__init__()
        self.position = position
        self.norm = nn.BatchNorm2d(channels)
        self.ran: list[ssl_dc.Route] = []

    def forward(self, x: Tensor, route: ssl_dc.Route) -> Tensor:
        self.ran.append(route)
        return self.norm(x)

    def for_route(self, route: ssl_dc.Route) -> nn.BatchNorm2d:  # noqa: ARG002
        return self.norm


class EveryOther(ssl_dc.Gate):
    """Opens every other channel; a branch stays shut."""

    macs = 11

    def __init__(self, site: ssl_dc.GateSite) -> None:
        super().__init__(site)
        self.open = site.granularity is ssl_dc.Granularity.CHANNEL

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        even = torch.arange(threshold.shape[-1]) % 2 == 0
        return (even & self.open).to(x.dtype).expand(len(x), -1)


def gates_on(granularity: ssl_dc.Granularity | None) -> Any:
    return lambda site: EveryOther(site) if site.granularity is granularity else None


def make(model: str, granularity: ssl_dc.Granularity | None = None) -> Timm:
    torch.manual_seed(0)
    return Timm(TimmOptions(model=model), OneNorm, gates_on(granularity))


def reference(model: str) -> nn.Module:
    """timm's own network, with the same weights."""
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(model, num_classes=0)
    return network


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def macs(network: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates that torch counts in a forward of one image without arithmetic."""
    shadow = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(*(value.to("meta") if isinstance(value, Tensor) else value for value in inputs))
    return counter.get_total_flops() // 2


# The same network


@pytest.mark.parametrize("model", WITH_SITES + WITHOUT_SITES)
def test_features_are_timms_bit_for_bit(model: str) -> None:
    backbone, network = make(model), reference(model)
    for training in (True, False):  # in this order, so that running statistics are no longer those of a new network
        backbone.train(training)
        network.train(training)
        with torch.no_grad():
            features, masks = backbone(images(), ssl_dc.Route.DENSE)
            assert torch.equal(features, network(images()))
        assert features.shape == (2, backbone.feature_dim)
        assert masks == {}


@pytest.mark.parametrize("model", WITH_SITES)
def test_open_gates_change_nothing(model: str) -> None:
    backbone = make(model, ssl_dc.Granularity.CHANNEL).eval()
    for point in backbone.gate_points():
        if point.gate is not None:
            point.gate.forward = lambda x, _threshold, site=point.site: torch.ones(len(x), site.channels)  # type: ignore[method-assign]
    with torch.no_grad():
        dense, _ = backbone(images(), ssl_dc.Route.DENSE)
        gated, masks = backbone(images(), ssl_dc.Route.GATED)
    assert torch.equal(dense, gated)
    assert masks


@pytest.mark.parametrize("route", ssl_dc.Route.BOTH)
def test_every_norm_of_a_resnet_is_told_the_route_and_where_it_stands(route: ssl_dc.Route) -> None:
    backbone = make("resnet10t")
    backbone(images(), route)
    norms = [module for module in backbone.modules() if isinstance(module, OneNorm)]
    assert all(norm.ran[-1] is route for norm in norms)
    counts = {position: sum(norm.position is position for norm in norms) for position in ssl_dc.Position}
    deep_stem, blocks, changes_of_shape = 3, 4, 3
    expected = {"STEM": deep_stem, "BLOCK": 2 * blocks, "DOWNSAMPLE": changes_of_shape}
    assert {position.name: count for position, count in counts.items()} == expected
    assert sum(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()) == len(norms)


def test_the_norms_of_a_policy_begin_as_timms() -> None:
    network = reference("mobilenetv3_small_050")
    theirs = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    ours = [module.norm for module in make("mobilenetv3_small_050").modules() if isinstance(module, OneNorm)]
    assert len(ours) == len(theirs) > 0
    assert [(norm.eps, norm.momentum) for norm in ours] == [(norm.eps, norm.momentum) for norm in theirs]
    ones = reference("resnet10t"), make("resnet10t")
    zero_weights = [sum(bool((p == 0).all()) for p in network.parameters() if p.ndim == 1) for network in ones]
    assert zero_weights[0] == zero_weights[1], "timm starts the last norm of each block at zero"


# The cost


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("model", WITH_SITES + WITHOUT_SITES)
def test_dense_cost_is_what_torch_counts_in_timms_network(model: str, size: int) -> None:
    assert make(model).cost_model(size).dense_macs == macs(reference(model), images(1, size))


def with_unlike_norms(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, no two channels normalised alike and no branch at zero."""
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert value is not None
            nn.init.uniform_(value, 0.5, 1.5)
    return network.eval()


def without_every_other_channel(network: nn.Module) -> nn.Module:
    """timm's network with every other hidden channel of its blocks cut out, where ssl-dc may shut it."""
    network = copy.deepcopy(network)
    for block in (module for module in network.modules() if isinstance(module, (BasicBlock, Bottleneck))):
        convs = [block.conv1, block.conv2] + ([block.conv3] if isinstance(block, Bottleneck) else [])
        for norm, before, after in zip((block.bn1, block.bn2), convs, convs[1:], strict=False):
            if after.groups == 1:
                before.weight = nn.Parameter(before.weight[::2].detach())
                after.weight = nn.Parameter(after.weight[:, ::2].detach())
                for name in ("weight", "bias"):
                    setattr(norm, name, nn.Parameter(getattr(norm, name)[::2].detach()))
                norm.running_mean, norm.running_var = norm.running_mean[::2], norm.running_var[::2]
    return network


@pytest.mark.parametrize("model", WITH_SITES)
def test_shutting_channels_is_cutting_them_out_in_features_and_in_cost(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_unlike_norms(reference(model))
    cut = without_every_other_channel(network)
    monkeypatch.setattr("ssl_dc_timm.backbone.create", lambda _options: network)
    backbone = make(model, ssl_dc.Granularity.CHANNEL).eval()
    with torch.no_grad():
        features, masks = backbone(images(), ssl_dc.Route.GATED)
        torch.testing.assert_close(features, cut(images()), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(features, backbone(images(), ssl_dc.Route.DENSE)[0], rtol=1e-2)
    expected = macs(cut, images(1)) + 11 * len(masks)
    assert backbone.cost_model(32).gated_macs(masks).tolist() == [expected, expected]


@pytest.mark.parametrize("model", WITH_SITES)
def test_shutting_branches_leaves_the_stem_and_the_shortcuts(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_unlike_norms(reference(model))
    cut = copy.deepcopy(network)
    for block in (module for module in cut.modules() if isinstance(module, (BasicBlock, Bottleneck))):
        monkeypatch.setattr(
            block, "forward", lambda x, block=block: torch.relu(block.downsample(x) if block.downsample else x)
        )
    monkeypatch.setattr("ssl_dc_timm.backbone.create", lambda _options: network)
    backbone = make(model, ssl_dc.Granularity.BRANCH).eval()
    with torch.no_grad():
        features, masks = backbone(images(), ssl_dc.Route.GATED)
        torch.testing.assert_close(features, cut(images()), rtol=1e-4, atol=1e-4)
        with FlopCounterMode(display=False) as counter:
            cut(images(1))
    expected = counter.get_total_flops() // 2 + 11 * len(masks)
    assert backbone.cost_model(32).gated_macs(masks).tolist() == [expected, expected]


# Sites, and what has none


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet10t", {"hidden", "branch"}),
        ("resnet26", {"reduced", "hidden", "branch"}),
        ("seresnext26d_32x4d", {"hidden", "branch"}),
        ("mobilenetv3_small_050", set()),
        ("convnext_atto", set()),
    ],
)
def test_sites_are_where_the_blocks_allow_them(model: str, expected: set[str]) -> None:
    sites = [point.site for point in make(model).gate_points()]
    assert {site.name.rpartition(".")[2] for site in sites} == expected
    assert len({site.name for site in sites}) == len(sites)
    backbone = make(model)
    counted = {layer.name for layer in backbone.cost_model(32).layers}
    assert all(set(site.layers) <= counted for site in sites)


def config(**backbone: Any) -> dict[str, Any]:
    return {"backbone": {"name": "timm", **backbone}, "data": {"name": "digits"}}


NO_GATES = {"gating": "none", "budget": {"target": None}, "routes": ["dense", "dense"]}


def build(settings: dict[str, Any]) -> ssl_dc.Model:
    return ssl_dc.Model.untrained(ssl_dc.RunConfig.model_validate(settings))


def test_gates_in_a_network_without_sites_are_refused_naming_both() -> None:
    with pytest.raises(ssl_dc.ConfigError, match=r"gating 'dgnet' acts on channel sites.*backbone 'timm' has none"):
        build(config(model="mobilenetv3_small_050"))
    model = build({**config(model="mobilenetv3_small_050"), **NO_GATES})
    assert model.dense(torch.randn(2, 3, 16, 16)).shape == (2, 1024)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18x", r"no such network; near: resnet18"),
        ("vit_tiny_patch16_224", r"counts 2-d convolutions and linear layers: 178,831,872 of its MACs.*are elsewhere"),
        ("resnetblur18", r"3,386,880 of its MACs"),
        ("hf-hub:timm/resnet18.a1_in1k", "no such network"),
    ],
)
def test_what_cannot_be_done_right_is_refused_with_a_sentence(model: str, said: str) -> None:
    with pytest.raises(ssl_dc.ConfigError, match=said):
        build({**config(model=model), **NO_GATES})


def test_attention_between_positions_is_counted_by_hand() -> None:
    """What is refused of the small ViT: queries with keys and weights with values, 12 blocks, 197 tokens, width 192."""
    assert 2 * 12 * 197 * 197 * 192 == 178_831_872


def test_an_image_that_is_too_small_is_refused_with_a_sentence() -> None:
    with pytest.raises(ssl_dc.ConfigError, match=r"'inception_v3' does not take images of 16 px"):
        build({**config(model="inception_v3"), **NO_GATES})


def test_pretrained_weights_that_cannot_be_had_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_arguments: Any, **options: Any) -> nn.Module:
        assert options["pretrained"]
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(ssl_dc.ConfigError, match=r"weights of 'resnet10t' cannot be had: no network"):
        build({**config(model="resnet10t", pretrained=True), **NO_GATES})


# In a run

TINY: dict[str, Any] = {
    "backbone.name": "timm",
    "objective.expander_width": 16,
    "data.limit": 16,
    "data.test_limit": 8,
    "training.batch_size": 8,
    "training.epochs": 1,
    "training.workers": 0,
}


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("resnet10t", {"norm": "separate", "budget.target": 0.4}),
        ("resnet10t", {"gating": "convnet_aig", "encoder": "double"}),
        ("mobilenetv3_small_050", {"gating": "none"}),
    ],
)
def test_it_trains_and_is_loaded_again(tmp_path: Path, model: str, settings: dict[str, Any]) -> None:
    run = ssl_dc.train({**TINY, "backbone.model": model, **settings}, output=tmp_path / "run")
    some = torch.randn(3, 3, 16, 16)
    loaded = ssl_dc.load(tmp_path / "run")
    assert torch.equal(loaded.dense(some), run.model.dense(some))
    if run.model.has_gates:
        assert torch.equal(loaded.gated(some).features, run.model.gated(some).features)


# what torch cannot compute


@pytest.mark.parametrize("channels", [3, 8, 12, 16])
def test_a_strided_pointwise_convolution_of_few_channels_drops_pixels_first(channels: int) -> None:
    plain = nn.Conv2d(channels, 8, 1, 2).to(memory_format=torch.channels_last)
    changed = nn.Sequential(copy.deepcopy(plain))
    avoid_unsafe_convolutions(changed)
    assert (type(changed[0]) is SkippingConv) == (channels < 16)
    assert changed.state_dict().keys() == nn.Sequential(plain).state_dict().keys()
    x = torch.randn(2, channels, 9, 7)
    torch.testing.assert_close(changed(x), plain(x))


def test_no_network_keeps_a_convolution_that_torch_cannot_compute() -> None:
    network = create(TimmOptions(model="gernet_s"))
    strided = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    few = [layer for layer in strided if layer.stride == (2, 2) and layer.in_channels < 16]
    assert few
    assert all(type(layer) is SkippingConv for layer in few)
