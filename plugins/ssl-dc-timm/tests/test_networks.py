"""Gate sites found in networks of six families: what a mask saves, what open gates change, and two steps of training."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fixed_parts import Fixed, OneNorm
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ssl_dc
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.plan_size import CountedRun, macs_of
from ssl_dc.compiled.static import make_static
from ssl_dc.testing import conformance
from ssl_dc_timm.backbone import Timm
from ssl_dc_timm.options import TimmOptions

torch.set_num_threads(1)

TINY_VIT = {"img_size": 32, "patch_size": 4}

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet50": {},
    "mobilenetv3_small_050": {},
    "efficientnet_b0": {},
    "convnext_atto": {},
    "regnetx_002": {},
    "vit_tiny_patch16_224": TINY_VIT,
}
"""The networks, with their options."""

FOUND = {
    "resnet50": {"channels": 2 * 16, "branch": 16},
    "mobilenetv3_small_050": {"channels": 11, "branch": 7},
    "efficientnet_b0": {"channels": 16, "branch": 9},
    "convnext_atto": {"channels": 12, "branch": 12},
    "regnetx_002": {"groups": 13, "branch": 13},
    "vit_tiny_patch16_224": {"channels": 12, "heads": 12, "branch": 2 * 12},
}
"""How many sites of each kind a network has: one for each block, or for each part of one."""

test_inverted_residuals = conformance("backbone", "timm", settings={"model": "mobilenetv3_small_050"})
test_convnext = conformance("backbone", "timm", settings={"model": "convnext_atto"})
test_groups = conformance("backbone", "timm", settings={"model": "regnetx_002"})
test_vit = conformance("backbone", "timm", settings={"model": "vit_tiny_patch16_224", **TINY_VIT})


@cache
def backbone(model: str) -> Timm:
    """The network with a gate at each of its sites, all open, whose norms and branches are far from 0."""
    torch.manual_seed(0)
    made = Timm(TimmOptions(model=model, **NETWORKS[model]), OneNorm, Fixed).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
                parameter.uniform_(0.5, 1.5)
    return made


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Any:
    made = backbone(request.param)
    yield made
    for point in made.gate_points():
        assert isinstance(point.gate, Fixed)
        point.gate.mask.fill_(1)


each_network = pytest.mark.parametrize("network", NETWORKS, indirect=True)


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def kinds(points: list[ssl_dc.GatePoint]) -> Counter[str]:
    return Counter(point.site.name.rpartition(".")[2] for point in points)


# What is found


@each_network
def test_sites_are_found_in_every_block(network: Timm) -> None:
    points = network.gate_points()
    assert kinds(points) == FOUND[network.options.model]
    assert len({point.site.name for point in points}) == len(points)
    for point in points:
        is_branch = point.site.name.endswith(".branch")
        assert point.site.granularity is (ssl_dc.Granularity.BRANCH if is_branch else ssl_dc.Granularity.CHANNEL)


@pytest.mark.parametrize(
    ("model", "site", "layers", "entries", "decides_on"),
    [
        ("resnet50", "layer1.0.conv1.channels", ["layer1.0.conv1", "layer1.0.conv2"], 64, 64),
        ("resnet50", "layer1.0.conv2.channels", ["layer1.0.conv2", "layer1.0.conv3"], 64, 64),
        (
            "efficientnet_b0",
            "blocks.2.1.conv_pw.channels",
            [f"blocks.2.1.{name}" for name in ("conv_pw", "conv_dw", "se.conv_reduce", "se.conv_expand", "conv_pwl")],
            240,
            40,
        ),
        (
            "efficientnet_b0",
            "blocks.0.0.conv_dw.channels",
            [f"blocks.0.0.{name}" for name in ("conv_dw", "se.conv_reduce", "se.conv_expand", "conv_pw")],
            32,
            32,
        ),
        ("convnext_atto", "stages.0.blocks.0.mlp.fc1.channels", [f"stages.0.blocks.0.mlp.fc{n}" for n in (1, 2)], 160, 40),
        ("regnetx_002", "s2.b1.conv1.conv.groups", [f"s2.b1.conv{number}.conv" for number in (1, 2, 3)], 7, 24),
        ("vit_tiny_patch16_224", "blocks.3.mlp.fc1.channels", ["blocks.3.mlp.fc1", "blocks.3.mlp.fc2"], 768, 192),
        (
            "vit_tiny_patch16_224",
            "blocks.3.attn.qkv.heads",
            ["blocks.3.attn.qkv", "blocks.3.attn.products", "blocks.3.attn.proj"],
            3,
            192,
        ),
    ],
)
def test_a_site_names_all_that_its_mask_saves(
    model: str, site: str, layers: list[str], entries: int, decides_on: int
) -> None:
    found = {point.site.name: point.site for point in backbone(model).gate_points()}[site]
    assert [layer.removeprefix("body.") for layer in found.layers] == layers
    assert (found.channels, found.in_channels) == (entries, decides_on)


def test_a_branch_is_all_that_its_sum_adds() -> None:
    sites = {point.site.name: point.site for point in backbone("resnet50").gate_points()}
    assert sites["layer2.0.branch"].layers == tuple(f"body.layer2.0.conv{number}" for number in (1, 2, 3))
    sites = {point.site.name: point.site for point in backbone("convnext_atto").gate_points()}
    names = ("conv_dw", "mlp.fc1", "mlp.fc2")
    assert sites["stages.1.blocks.0.branch"].layers == tuple(f"body.stages.1.blocks.0.{name}" for name in names)


def test_a_norm_is_of_the_stem_of_a_shortcut_or_of_a_block() -> None:
    def places(model: str) -> Counter[str]:
        norms = [module for module in backbone(model).modules() if isinstance(module, OneNorm)]
        return Counter(norm.position.name for norm in norms)

    assert places("resnet50") == {"STEM": 1, "BLOCK": 3 * 16, "DOWNSAMPLE": 4}
    assert places("vit_tiny_patch16_224") == {"BLOCK": 2 * 12 + 1}


# What it costs


@each_network
def test_the_dense_cost_is_what_torch_counts_in_timms_network(network: Timm) -> None:
    theirs = timm.create_model(network.options.model, num_classes=0, **NETWORKS[network.options.model]).eval()
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)  # torch does not count its fused attention
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        theirs(images(1))
    cost = network.cost_model(32)
    assert cost.dense_macs == counter.get_total_flops() // 2
    assert cost.dense_macs == sum(layer.macs for layer in cost.layers if not layer.gate)


def test_attention_between_positions_is_counted() -> None:
    """Queries with keys and weights with values: 12 blocks, 65 tokens, width 192."""
    layers = backbone("vit_tiny_patch16_224").cost_model(32).layers
    assert sum(layer.macs for layer in layers if layer.name.endswith(".products")) == 2 * 12 * 65 * 65 * 192


@each_network
def test_the_gated_cost_is_the_open_share_of_what_the_sites_save(network: Timm) -> None:
    cost = network.cost_model(32)
    half: dict[str, Tensor] = {}
    for name, entries in cost.channels.items():
        half[name] = (torch.arange(entries) % 2 == 0).float()[None] if not name.endswith(".branch") else torch.ones(1, 1)
    expected = 0.0
    for layer in cost.layers:
        share = 1.0
        for site in layer.sites:
            share *= float(half[site].double().mean())
        expected += layer.macs * share
    assert float(cost.gated_macs(half)) == pytest.approx(expected, rel=1e-12)
    assert float(cost.gated_macs({name: torch.ones_like(mask) for name, mask in half.items()})) == (
        cost.dense_macs + 11 * len(half)
    )


# What open and shut gates do


@each_network
def test_open_gates_change_nothing(network: Timm) -> None:
    with torch.no_grad():
        dense, none = network(images(), ssl_dc.Route.DENSE)
        gated, masks = network(images(), ssl_dc.Route.GATED)
    assert torch.equal(dense, gated)
    assert none == {}
    assert masks.keys() == {point.site.name for point in network.gate_points()}


@each_network
def test_what_a_mask_shuts_is_not_used(network: Timm) -> None:
    """With every other entry shut, the weights of the shut entries may be anything: only half of each layer matters."""
    points = [point for point in network.gate_points() if not point.site.name.endswith(".branch")]
    for point in points:
        assert isinstance(point.gate, Fixed)
        point.gate.mask[::2] = 0
    shares = {point.site.name: float(point.gate.mask.mean()) for point in points if isinstance(point.gate, Fixed)}
    network.zero_grad()
    features, _ = network(images(), ssl_dc.Route.GATED)
    (features * torch.randn(features.shape)).sum().backward()
    for layer in network.cost_model(32).layers:
        sites = [site for site in layer.sites if not site.endswith(".branch")]
        if sites and not layer.name.endswith(".products"):
            gradient = network.get_submodule(layer.name).weight.grad
            assert isinstance(gradient, Tensor)
            used = float((gradient != 0).float().mean())
            declared = torch.tensor([shares[site] for site in sites]).prod()
            assert 0 < used <= float(declared) + 1e-6, layer.name


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("densenet121", {"channels": 58}),
        ("mobilenetv4_conv_small_035", {"channels": 15, "branch": 10}),
        ("resnext26ts", {"groups": 8, "branch": 8}),
    ],
)
def test_networks_of_other_families_have_sites_too(model: str, found: dict[str, int]) -> None:
    made = Timm(TimmOptions(model=model), OneNorm, Fixed).eval()
    assert kinds(made.gate_points()) == found
    with torch.no_grad():
        dense, gated = (made(images(), route)[0] for route in ssl_dc.Route.BOTH)
    assert torch.equal(dense, gated)


def test_a_network_with_gates_can_be_pickled() -> None:
    network = untrained("mobilenetv3_small_050", "dgnet")
    again = pickle.loads(pickle.dumps(network))
    assert torch.equal(again.gated(images()).features, network.gated(images()).features)
    assert torch.equal(copy.deepcopy(network).gated(images()).features, network.gated(images()).features)


# Two steps


STEPS: dict[str, Any] = {
    "backbone.name": "timm",
    "objective.expander_width": 16,
    "data.limit": 16,
    "data.test_limit": 8,
    "data.image_size": 32,
    "training.batch_size": 8,
    "training.epochs": 1,
    "training.workers": 0,
    "budget.target": 0.9,
}
"""Two steps on digits at 32 px, at a budget that every network can hold."""


def settings(model: str) -> dict[str, Any]:
    return {**STEPS, "backbone.model": model, **{f"backbone.{name}": value for name, value in NETWORKS[model].items()}}


PAIRS = list(product(("vicreg", "barlow_twins"), ("dgnet", "convnet_aig", "prefix", "random")))
QUICK = {
    "mobilenetv3_small_050": [("vicreg", "dgnet"), ("barlow_twins", "convnet_aig")],
    "vit_tiny_patch16_224": [("vicreg", "dgnet")],
    "regnetx_002": [("barlow_twins", "dgnet")],
}


@pytest.mark.parametrize(
    ("model", "objective", "gating"),
    [
        pytest.param(model, *pair, marks=() if pair in QUICK.get(model, []) else pytest.mark.slow)
        for model in NETWORKS
        for pair in PAIRS
    ],
)
def test_two_steps_and_the_run_is_loaded_again(tmp_path: Path, model: str, objective: str, gating: str) -> None:
    run = ssl_dc.train(
        {**settings(model), "objective.name": objective, "gating.name": gating, "norm.name": "separate"},
        output=tmp_path / "run",
    )
    some = images(3)
    loaded = ssl_dc.load(tmp_path / "run")
    assert torch.equal(loaded.dense(some), run.model.dense(some))
    assert torch.equal(loaded.gated(some).features, run.model.gated(some).features)
    assert torch.isfinite(loaded.gated(some).features).all()


# Compiled


@cache
def untrained(model: str, gating: str) -> ssl_dc.Model:
    """A network whose norms, branches and thresholds differ from each other, so that its gates open about half."""
    config = ssl_dc.RunConfig.model_validate(
        {
            "backbone": {"name": "timm", "model": model, **NETWORKS.get(model, {})},
            "data": {"name": "digits", "image_size": 32},
            "gating": gating,
            "budget": {"target": 0.9},
        }
    )
    made = ssl_dc.Model.untrained(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
                parameter.uniform_(0.5, 1.5)
        for point in made.encoder.backbone(ssl_dc.Route.GATED).gate_points():
            if point.gate is not None:
                point.gate.excite.weight.normal_(0, 3)  # type: ignore[union-attr, operator]
                point.gate.thresholds.normal_(0, 0.5)
                if gating == "convnet_aig":
                    point.gate.excite.bias.zero_()  # type: ignore[union-attr, operator]
    return made


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("model", NETWORKS)
def test_the_compiled_network_gives_the_features_of_the_reference(model: str, gating: str, backend: str) -> None:
    network = untrained(model, gating)
    some = images(3)
    for compiled, reference in (
        (network.compile_dense(backend=backend)(some), network.dense(some)),
        (network.compile_gated(backend=backend)(some), network.gated(some).features),
    ):
        assert float((compiled.features - reference).abs().max() / reference.abs().max()) < 1e-4
    gated, executed = network.gated(some), network.compile_gated(backend=backend)(some)
    assert {site: mask.tolist() for site, mask in executed.masks.items()} == {
        site: mask.tolist() for site, mask in gated.masks.items()
    }
    assert 0.1 < float(torch.cat([mask.flatten() for mask in gated.masks.values()]).mean()) < 0.9


@pytest.mark.parametrize("model", [*NETWORKS, "regnety_002", "seresnext26d_32x4d"])
def test_the_compiled_network_multiplies_what_the_cost_model_counts(model: str) -> None:
    """Every mask saves what is promised, in layers of every kind and in attention."""
    network = untrained(model, "dgnet")
    plan = network.compile_gated(backend="torch").plan
    cost = network.encoder.backbone(network.gated_route).cost_model(32)
    gates = sum(layer.macs for layer in cost.layers if layer.gate)
    run = CountedRun(plan)
    features = run(images(1))
    assert run.macs == int(cost.gated_macs(run.masks)) - gates
    assert macs_of(plan, 32) == cost.dense_macs
    reference = network.gated(images(1)).features
    assert float((features - reference).abs().max() / reference.abs().max()) < 1e-5


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_site_saves_something_in_the_compiled_network(model: str, gating: str) -> None:
    assert untrained(model, gating).compile_gated(backend="torch").sites_that_save_nothing == []


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "regnetx_002", "mobilenetv3_small_050"])
def test_a_static_network_is_the_gated_route_of_the_image_whose_masks_it_has(model: str) -> None:
    network = untrained(model, "dgnet")
    expected = network.gated(images(1))
    plan = network.compile_gated(backend="torch").plan
    static = PlanNetwork(make_static(plan, {site: mask[0] for site, mask in expected.masks.items()}, 0.5))
    with torch.no_grad():
        features = static(images(3))[:1]
    assert float((features - expected.features).abs().max() / expected.features.abs().max()) < 1e-5


@pytest.mark.parametrize("model", NETWORKS)
def test_the_kernel_runs_every_layer(model: str) -> None:
    executor = untrained(model, "dgnet").compile_gated(backend="native")
    executor(images(1))
    steps = executor._runner._program((32, 32)).host_steps.values()  # type: ignore[attr-defined]
    of_tokens = ["Call", "Add", "Call"]  # join the class token, add the position embedding, take the class token
    assert [type(step).__name__ for step in steps] == (of_tokens if model.startswith("vit") else [])


@pytest.mark.parametrize("policy", ["separate", "shared"])
def test_layer_norms_of_the_routes_learn_apart_if_they_are_separate(policy: str) -> None:
    settings = {"backbone": {"name": "timm", "model": "vit_tiny_patch16_224", **TINY_VIT}, "norm": policy}
    config = ssl_dc.RunConfig.model_validate({**settings, "data": {"name": "digits", "image_size": 32}})
    network = ssl_dc.Model.untrained(config).encoder.backbone(ssl_dc.Route.GATED)
    features, _ = network.train()(images(), ssl_dc.Route.GATED)
    features.square().sum().backward()
    norms = [module for module in network.modules() if isinstance(module, ssl_dc.RouteNorm)]
    assert len(norms) == 25
    for norm in norms:
        dense, gated = (norm.for_route(route) for route in ssl_dc.Route.BOTH)
        assert isinstance(dense, nn.LayerNorm)
        assert gated.weight.grad is not None
        assert (dense.weight.grad is None) == (policy == "separate")
