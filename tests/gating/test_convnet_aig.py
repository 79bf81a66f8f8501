"""ConvNet-AIG gates, what a skipped branch costs, and the losses: the facts of method section 5."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_dc.backbones.options import ResNet18Options
from ssl_dc.backbones.resnet import BasicBlock, ResNet18
from ssl_dc.gating import convnet_aig
from ssl_dc.gating.base import gates_of, set_threshold
from ssl_dc.gating.convnet_aig import ConvNetAIG, ConvNetAIGGate, gumbel_noise
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.gating.options import ConvNetAIGOptions
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.options import SharedOptions
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.routes import Route

torch.set_num_threads(1)  # on networks this small, threads only wait for one another

WIDTH, SIZE = 8, 12


def network(options: ConvNetAIGOptions | None = None) -> ResNet18:
    torch.manual_seed(0)
    scheme = ConvNetAIG(options or ConvNetAIGOptions())
    return ResNet18(ResNet18Options(width=WIDTH, stem="cifar"), SharedNorms(SharedOptions()).layer, scheme.make_gate)


def undecided(net: ResNet18) -> ResNet18:
    """Gates whose decisions differ between images and blocks, as those of a new network hardly do."""
    with torch.no_grad():
        for gate in gates_of(net):
            assert isinstance(gate, ConvNetAIGGate)
            gate.excite.weight.normal_()
            gate.excite.bias.zero_()
            gate.norm.running_mean.normal_(std=0.1)
    return net


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def make_gate(in_channels: int = 8, options: ConvNetAIGOptions | None = None) -> ConvNetAIGGate:
    site = GateSite("block.branch", Granularity.BRANCH, in_channels, 1, ())
    return ConvNetAIG(options or ConvNetAIGOptions()).gate(site)


def with_logits(gate: ConvNetAIGGate, logits: Tensor, monkeypatch: pytest.MonkeyPatch) -> ConvNetAIGGate:
    """The gate, deciding by the given logits (N, 2) of skip and run."""
    monkeypatch.setattr(gate, "logits", lambda _x: logits)
    return gate


ANYTHING = torch.zeros(1, 8, 2, 2)


# The gate at the start


def test_published_defaults() -> None:
    options = ConvNetAIGOptions()
    assert (options.hidden, options.noise, options.loss, options.penalty) == (16, 1.0, "target_rate", 2.0)


def test_gate_layers_are_1x1_convolutions_with_biases() -> None:
    convolutions = [m for m in make_gate(in_channels=24).modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in convolutions] == [(16, 24, 1, 1), (2, 16, 1, 1)]
    assert all(m.bias is not None for m in convolutions)


def test_last_layer_starts_at_its_bias_with_tiny_weights() -> None:
    torch.manual_seed(0)
    gates = [make_gate() for _ in range(60)]
    for gate in gates:
        assert gate.excite.bias is not None
        assert gate.excite.bias.tolist() == pytest.approx([0.1, 2.0])
    weights = torch.cat([gate.excite.weight.flatten() for gate in gates]).double()
    assert weights.numel() == 60 * 32
    assert weights.std().item() == pytest.approx(0.001, rel=0.08)
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)


def test_about_85_percent_of_the_branches_run_at_the_start() -> None:
    torch.manual_seed(0)
    gate = make_gate().train()
    opened = torch.cat([gate(torch.randn(10_000, 8, 1, 1), gate.thresholds[0]) for _ in range(3)]).mean().item()
    # a difference of two Gumbel variables is logistic: sigmoid(2 - 0.1) = 0.870
    assert opened == pytest.approx(1 / (1 + math.exp(-1.9)), abs=0.008)
    assert 0.84 < opened < 0.88


def test_all_branches_run_at_the_start_in_evaluation() -> None:
    _, masks = network().eval()(images(), Route.GATED)
    assert all(bool((mask == 1).all()) for mask in masks.values())


# Masks


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exactly_0_or_1(training: bool) -> None:
    net = undecided(network()).train(training)
    _, masks = net(images(32), Route.GATED)
    assert list(masks) == [f"stages.layer{stage}.{block}.branch" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert all(tuple(mask.shape) == (32, 1) for mask in masks.values())
    assert set(torch.cat(list(masks.values())).unique().tolist()) == {0.0, 1.0}


def test_evaluation_is_argmax_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[0.1, 2.0], [2.0, 0.1], [-3.0, -3.001], [-3.001, -3.0]])
    gate = with_logits(make_gate().eval(), logits, monkeypatch)
    state = torch.get_rng_state()
    assert gate(ANYTHING, gate.thresholds[0]).flatten().tolist() == [1, 0, 0, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    net = undecided(network())
    x = images(32)
    first, second = (torch.cat(list(net(x, Route.GATED)[1].values()), 1) for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    first, second = (torch.cat(list(net(x, Route.GATED)[1].values()), 1) for _ in range(2))
    assert torch.equal(first, second)


def test_training_gate_runs_with_the_probability_of_its_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    for skip, run in [(0.0, 0.0), (0.1, 2.0), (1.0, -1.0)]:
        gate = with_logits(make_gate().train(), torch.tensor([[skip, run]]).expand(20_000, 2), monkeypatch)
        expected = math.exp(run) / (math.exp(skip) + math.exp(run))
        assert gate(ANYTHING, gate.thresholds[0]).mean().item() == pytest.approx(expected, abs=0.014)


def test_noise_is_standard_gumbel() -> None:
    torch.manual_seed(0)
    count = 20_000
    noise = gumbel_noise(torch.zeros(count // 2, 2)).flatten().double().sort().values
    assert torch.isfinite(noise).all()
    cdf = torch.exp(-torch.exp(-noise))
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((cdf - steps[:-1]).abs(), (cdf - steps[1:]).abs()).max().item()
    assert distance < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov at 1 %
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.06)


def test_noise_option_scales_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convnet_aig, "gumbel_noise", lambda _logits: torch.tensor([[1.0, 0.0]]))
    for scale, expected in [(1.0, 0), (0.5, 1), (0.0, 1)]:
        gate = make_gate(options=ConvNetAIGOptions(noise=scale)).train()
        with_logits(gate, torch.tensor([[0.0, 0.75]]), monkeypatch)
        assert gate(ANYTHING, gate.thresholds[0]).item() == expected, scale


def test_straight_through_gradient_is_that_of_the_softmax_at_temperature_1(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[0.2, 1.0], [-0.5, -0.4], [3.0, 0.0]], requires_grad=True)
    noise = torch.tensor([[0.9, -0.3], [-1.0, 0.4], [0.2, 0.1]])
    upstream = torch.tensor([[1.0], [-2.0], [3.0]])
    monkeypatch.setattr(convnet_aig, "gumbel_noise", lambda _logits: noise)
    gate = with_logits(make_gate().train(), raw, monkeypatch)
    mask = gate(ANYTHING, gate.thresholds[0])
    assert mask.flatten().tolist() == [0, 1, 0]
    (mask * upstream).sum().backward()
    assert raw.grad is not None
    for i in range(3):
        skip, run = (raw[i, c].item() + noise[i, c].item() for c in (0, 1))
        soft = math.exp(run) / (math.exp(skip) + math.exp(run))
        expected = upstream[i, 0].item() * soft * (1 - soft)
        assert raw.grad[i].tolist() == pytest.approx([-expected, expected], rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_logits_by_hand(training: bool) -> None:
    torch.manual_seed(2)
    gate = make_gate(in_channels=6).train(training)
    nn.init.normal_(gate.excite.weight)
    nn.init.normal_(gate.norm.weight)
    nn.init.normal_(gate.norm.bias)
    gate.norm.running_mean.normal_()
    gate.norm.running_var.uniform_(0.5, 2)
    w1, w2 = (conv.weight.detach().double().numpy()[:, :, 0, 0] for conv in (gate.squeeze, gate.excite))
    b1, b2 = (conv.bias.detach().double().numpy() for conv in (gate.squeeze, gate.excite) if conv.bias is not None)
    scale, shift = (t.detach().double().numpy() for t in (gate.norm.weight, gate.norm.bias))
    x = torch.randn(7, 6, 3, 5)
    squeezed = x.double().numpy().sum(axis=(2, 3)) / 15 @ w1.T + b1
    if training:
        mean = squeezed.sum(axis=0) / 7
        spread = ((squeezed - mean) ** 2).sum(axis=0) / 7
    else:
        mean, spread = (t.double().numpy() for t in (gate.norm.running_mean, gate.norm.running_var))
    normalised = (squeezed - mean) / np.sqrt(spread + 1e-5) * scale + shift
    expected = np.where(normalised > 0, normalised, 0) @ w2.T + b2
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_mask_has_the_dtype_of_the_input_and_logits_are_float32(training: bool) -> None:
    gate = make_gate().train(training)
    x = torch.randn(4, 8, 3, 3).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gate.logits(x).dtype is torch.float32
        mask = gate(x, gate.thresholds[0])
    assert mask.dtype is torch.bfloat16
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


# A skipped branch


def test_output_of_a_skipped_block_is_its_shortcut() -> None:
    net = undecided(network()).eval()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    blocks = {name: module for name, module in net.named_modules() if isinstance(module, BasicBlock)}
    for name, block in blocks.items():
        block.register_forward_hook(lambda _m, args, out, name=name: seen.update({name: (args[0], out)}))
    _, masks = net(images(), Route.GATED)
    skipped = 0
    for name, block in blocks.items():
        x, out = seen[name]
        shortcut = torch.relu(x if block.shortcut is None else block.shortcut(x, Route.GATED))
        whole = block(x, Route.DENSE, {})
        for image, opened in enumerate(masks[f"{name}.branch"].flatten().tolist()):
            torch.testing.assert_close(out[image], whole[image] if opened else shortcut[image])
            skipped += 1 - int(opened)
    assert 0 < skipped < 8 * len(blocks), "the test is idle if no block or every block is skipped"


def counted_by_hand(width: int, image: int, opened: Sequence[int] | None) -> int:
    """MACs with the `cifar` stem, dense or, given which branches run, gated."""
    h = image + 2
    total = 27 * width * h * h
    c_in, block = width, 0
    for stage in range(4):
        c_out = width * 2**stage
        for index in range(2):
            if stage > 0 and index == 0:
                h = (h + 1) // 2
            branch = 9 * h * h * c_in * c_out + 9 * h * h * c_out * c_out
            total += branch if opened is None else branch * opened[block]
            total += h * h * c_in * c_out if c_in != c_out else 0
            total += 0 if opened is None else c_in * 16 + 16 * 2
            c_in, block = c_out, block + 1
    return total


def test_skipped_branch_costs_the_shortcut_and_the_gate_only() -> None:
    cost = network().cost_model(SIZE)
    assert cost.dense_macs == counted_by_hand(WIDTH, SIZE, None)
    rows = [[1] * 8, [0] * 8, [1, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 0, 1, 0, 1]]
    masks = {site: torch.tensor([[float(row[block])] for row in rows]) for block, site in enumerate(cost.channels)}
    assert cost.gated_macs(masks).tolist() == [counted_by_hand(WIDTH, SIZE, row) for row in rows]
    assert cost.floor_macs == counted_by_hand(WIDTH, SIZE, [0] * 8)


def test_cost_of_the_papers_network() -> None:
    net = ResNet18(
        ResNet18Options(stem="cifar"), SharedNorms(SharedOptions()).layer, ConvNetAIG(ConvNetAIGOptions()).make_gate
    )
    cost = net.cost_model(32)
    assert cost.dense_macs == counted_by_hand(64, 32, None) == 703_560_448
    assert cost.floor_macs == counted_by_hand(64, 32, [0] * 8)


def test_threshold_makes_the_network_cheaper_and_never_dearer() -> None:
    net = undecided(network()).eval()
    x, cost = images(32), net.cost_model(SIZE)
    paid = []
    for threshold in (-32.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 32.0):
        set_threshold(net, threshold)
        with torch.no_grad():
            paid.append(cost.gated_macs(net(x, Route.GATED)[1]).mean().item())
    assert paid == sorted(paid, reverse=True)
    assert len(set(paid)) > 4
    assert paid[0] == counted_by_hand(WIDTH, SIZE, [1] * 8)
    assert paid[-1] == counted_by_hand(WIDTH, SIZE, [0] * 8)


@pytest.mark.parametrize("training", [True, False])
def test_threshold_is_what_run_must_exceed_skip_by(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convnet_aig, "gumbel_noise", torch.zeros_like)
    logits = torch.tensor([[0.5, 1.9], [0.5, 2.1], [-1.0, 0.0], [-2.0, 0.0]])
    gate = with_logits(make_gate().train(training), logits, monkeypatch)
    set_threshold(gate, 1.5)
    assert gate(ANYTHING, gate.thresholds[0]).flatten().tolist() == [0, 1, 0, 1]


# Losses

COST = CostModel(
    (
        LayerCost("stem", 100),
        LayerCost("a", 600, ("s",)),
        LayerCost("b", 300, ("t",)),
        LayerCost("s.gate", 6, gate=True),
        LayerCost("t.gate", 4, gate=True),
    ),
    {"s": 1, "t": 1},
)
MASKS = {"s": torch.tensor([[1.0], [0], [0], [0]]), "t": torch.tensor([[1.0], [1], [1], [0]])}
# open shares 1/4 and 3/4; costs 1010, 410, 410 and 110 of 1000
RATIO = (1.01 + 0.41 + 0.41 + 0.11) / 4


@pytest.mark.parametrize("progress", [0.0, 0.7])
def test_rate_loss_by_hand(progress: float) -> None:
    losses = ConvNetAIG(ConvNetAIGOptions()).losses(Trace(MASKS, COST), 0.3, progress)
    assert set(losses) == {"rate"}
    assert losses["rate"].item() == pytest.approx(2 * ((0.3 - 0.25) ** 2 + (0.3 - 0.75) ** 2) / 2, rel=1e-5)


def test_budget_loss_by_hand() -> None:
    options = ConvNetAIGOptions(loss="budget", penalty=5)
    losses = ConvNetAIG(options).losses(Trace(MASKS, COST), 0.3, 0.5)
    assert set(losses) == {"budget"}
    assert losses["budget"].item() == pytest.approx(5 * (RATIO - 0.3) ** 2, rel=1e-5)


@pytest.mark.parametrize("loss", ["target_rate", "budget"])
def test_weight_of_the_loss_is_an_option(loss: str) -> None:
    one, three = (
        next(iter(ConvNetAIG(ConvNetAIGOptions(loss=loss, penalty=p)).losses(Trace(MASKS, COST), 0.9, 0).values()))  # type: ignore[arg-type]
        for p in (1, 3)
    )
    assert three.item() == pytest.approx(3 * one.item(), rel=1e-6)
    assert one.item() > 0


@pytest.mark.parametrize("name", ["objective", "rate", "budget"])
def test_every_gate_gets_gradient_from_every_loss(name: str) -> None:
    options = ConvNetAIGOptions(loss="budget" if name == "budget" else "target_rate")
    net = network(options)
    features, masks = net(images(32), Route.GATED)
    terms = {
        "objective": features.square().mean(),
        **ConvNetAIG(options).losses(Trace(masks, net.cost_model(SIZE)), 0.1, 0.5),
    }
    terms[name].backward()
    gates = gates_of(net)
    assert len(gates) == 8
    for gate in gates:
        for parameter in gate.parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
        assert gate.excite.weight.grad.abs().max() > 0
        assert gate.excite.bias.grad.abs().min() > 0
        assert gate.squeeze.weight.grad.abs().max() > 0


@pytest.mark.parametrize("loss", ["target_rate", "budget"])
def test_descending_the_loss_shuts_branches_that_are_too_many(loss: str) -> None:
    gate = make_gate(options=ConvNetAIGOptions(loss=loss)).train()  # type: ignore[arg-type]
    torch.manual_seed(0)
    mask = gate(torch.randn(64, 8, 2, 2), gate.thresholds[0])
    scheme = ConvNetAIG(ConvNetAIGOptions(loss=loss))  # type: ignore[arg-type]
    next(iter(scheme.losses(Trace({"s": mask, "t": mask}, COST), 0.1, 0.0).values())).backward()
    assert gate.excite.bias is not None
    assert gate.excite.bias.grad is not None
    skip, run = gate.excite.bias.grad.tolist()
    assert skip < 0 < run


# The dense route


def test_dense_route_never_runs_a_gate_and_leaves_it_without_gradient() -> None:
    net = network()
    before = [gate.norm.running_mean.clone() for gate in gates_of(net)]
    features, masks = net(images(), Route.DENSE)
    assert masks == {}
    features.square().mean().backward()
    for gate, mean in zip(gates_of(net), before, strict=True):
        assert all(p.grad is None for p in gate.parameters())
        assert torch.equal(gate.norm.running_mean, mean)


def test_scheme_gates_branch_sites_only() -> None:
    scheme = ConvNetAIG(ConvNetAIGOptions())
    assert scheme.make_gate(GateSite("b.hidden", Granularity.CHANNEL, 8, 8, ())) is None
    assert isinstance(scheme.make_gate(GateSite("b.branch", Granularity.BRANCH, 8, 1, ())), ConvNetAIGGate)
