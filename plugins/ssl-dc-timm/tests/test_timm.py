"""timm's networks as backbones: the same features as timm's, the right cost, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fixed_parts import Fixed, OneNorm
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
WITHOUT_SITES = ["lcnet_035"]

test_timm_basic_blocks = conformance("backbone", "timm", settings={"model": "resnet10t"})
test_timm_bottlenecks = conformance("backbone", "timm", settings={"model": "resnet14t"})
test_timm_without_sites = conformance("backbone", "timm", settings={"model": "lcnet_035"})


def gates_on(granularity: ssl_dc.Granularity | None) -> Any:
    return lambda site: Fixed(site) if site.granularity is granularity else None


def shut(backbone: Timm) -> None:
    """Shut every other entry of each mask, and whole branches."""
    for gate in (module for module in backbone.modules() if isinstance(module, Fixed)):
        gate.mask[1::2] = 0
        if len(gate.mask) == 1:
            gate.mask.zero_()


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
            group = before.out_channels // max(before.groups, after.groups)  # channels that an entry of the mask shuts
            kept = torch.arange(before.out_channels) // (1 if group == before.out_channels else group) % 2 == 0
            before.weight = nn.Parameter(before.weight[kept].detach())
            before.groups = max(1, before.groups // 2)
            if after.groups == 1:
                after.weight = nn.Parameter(after.weight[:, kept].detach())
            for name in ("weight", "bias"):
                setattr(norm, name, nn.Parameter(getattr(norm, name)[kept].detach()))
            norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    return network


@pytest.mark.parametrize("model", WITH_SITES)
def test_shutting_channels_is_cutting_them_out_in_features_and_in_cost(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = with_unlike_norms(reference(model))
    cut = without_every_other_channel(network)
    monkeypatch.setattr("ssl_dc_timm.backbone.create", lambda _options: network)
    backbone = make(model, ssl_dc.Granularity.CHANNEL).eval()
    shut(backbone)
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
    shut(backbone)
    with torch.no_grad():
        features, masks = backbone(images(), ssl_dc.Route.GATED)
        torch.testing.assert_close(features, cut(images()), rtol=1e-4, atol=1e-4)
        with FlopCounterMode(display=False) as counter:
            cut(images(1))
    expected = counter.get_total_flops() // 2 + 11 * len(masks)
    assert backbone.cost_model(32).gated_macs(masks).tolist() == [expected, expected]


# What is refused


def config(**backbone: Any) -> dict[str, Any]:
    return {"backbone": {"name": "timm", **backbone}, "data": {"name": "digits"}}


NO_GATES = {"gating": "none", "budget": {"target": None}, "routes": ["dense", "dense"]}


def build(settings: dict[str, Any]) -> ssl_dc.Model:
    return ssl_dc.Model.untrained(ssl_dc.RunConfig.model_validate(settings))


def test_gates_in_a_network_without_sites_are_refused_with_the_reason() -> None:
    said = r"gating 'dgnet' acts on channel sites.*backbone 'timm' has none.*: lcnet_035: no value between two of its conv"
    with pytest.raises(ssl_dc.ConfigError, match=said):
        build(config(model="lcnet_035"))
    model = build({**config(model="lcnet_035"), **NO_GATES})
    assert model.dense(torch.randn(2, 3, 16, 16)).shape == (2, model.feature_dim)


def test_gates_in_a_network_that_cannot_be_traced_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean(dim=(2, 3)) if x.shape[0] > 0 else x

    monkeypatch.setattr("ssl_dc_timm.backbone.create", lambda _options: Branching())
    monkeypatch.setattr("ssl_dc_timm.backbone.resolve_model_data_config", lambda _network: {"input_size": (3, 32, 32)})
    with pytest.raises(ssl_dc.ConfigError, match=r"backbone 'timm' has none.*forward cannot be traced \(TraceError"):
        build(config(model="branching"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18x", r"no such network; near: resnet18"),
        (
            "resnetblur18",
            r"counts 2-d convolutions, linear layers and attention: 3,386,880 of its MACs at 224 px are elsewhere",
        ),
        ("hf-hub:timm/resnet18.a1_in1k", "no such network"),
    ],
)
def test_what_cannot_be_done_right_is_refused_with_a_sentence(model: str, said: str) -> None:
    with pytest.raises(ssl_dc.ConfigError, match=said):
        build({**config(model=model), **NO_GATES})


def test_a_size_that_a_network_does_not_take_is_refused_with_a_sentence() -> None:
    with pytest.raises(
        ssl_dc.ConfigError, match=r"16 px: Input height doesn't match model \(224\)\. \(where .* backbone.img_size sets"
    ):
        build({**config(model="vit_tiny_patch16_224"), **NO_GATES})
    with pytest.raises(ssl_dc.ConfigError, match=r"backbone.img_size: 'resnet10t' does not take this"):
        build({**config(model="resnet10t", img_size=16), **NO_GATES})


def test_patches_that_do_not_fill_the_images_are_refused_with_a_sentence() -> None:
    with pytest.raises(
        ssl_dc.ConfigError,
        match=r"backbone.patch_size = 5: .* last 2 rows and columns of images of 32 px; allowed .*: 1, 2, 4, 8, 16, 32$",
    ):
        build({**config(model="vit_tiny_patch16_224", img_size=32, patch_size=5), **NO_GATES})


def test_a_network_is_named_in_messages_and_tables() -> None:
    assert "network: timm resnet10t, 16 px" in repr(build({**config(model="resnet10t"), "budget": {"target": 0.5}}))
    with pytest.raises(ssl_dc.ConfigError, match=r"budget.target = 0.001: below what timm resnet10t at 16 px costs"):
        build({**config(model="resnet10t"), "budget": {"target": 0.001}})


def test_local_views_of_a_network_that_takes_one_size_are_refused_with_a_sentence(tmp_path: Path) -> None:
    network = {"backbone.model": "vit_tiny_patch16_224", "backbone.img_size": 16, "backbone.patch_size": 8}
    local = {**TINY, **network, "data.image_size": 16, "views.local_size": 8, "views.global_count": 1}
    said = r"^local views of 8 px do not fit the network.*'vit_tiny_patch16_224' does not take images of 8 px: Input height"
    with pytest.raises(ssl_dc.ConfigError, match=said):
        ssl_dc.train(local, output=tmp_path / "run")


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
        ("lcnet_035", {"gating": "none"}),
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
