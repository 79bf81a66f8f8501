"""DGNet gates and their losses: the facts of method section 4."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssl_dc.backbones.options import ResNet18Options
from ssl_dc.backbones.resnet import BasicBlock, ResNet18
from ssl_dc.gating import dgnet
from ssl_dc.gating.base import gates_of, set_threshold
from ssl_dc.gating.cost import CostModel, LayerCost, Trace
from ssl_dc.gating.dgnet import DGNet, DGNetGate, bound, logistic_noise, straight_through
from ssl_dc.gating.options import DGNetOptions
from ssl_dc.gating.sites import GateSite, Granularity
from ssl_dc.norms.options import SharedOptions
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.routes import Route


def network(width: int = 8) -> ResNet18:
    torch.manual_seed(0)
    options = ResNet18Options(width=width, stem="cifar")
    return ResNet18(options, SharedNorms(SharedOptions()).layer, DGNet(DGNetOptions()).make_gate)


def images(count: int = 4, size: int = 12) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def make_gate(in_channels: int = 8, channels: int = 6, options: DGNetOptions | None = None) -> DGNetGate:
    site = GateSite("block.hidden", Granularity.CHANNEL, in_channels, channels, ())
    return DGNet(options or DGNetOptions()).gate(site)


def blocks_of(net: ResNet18) -> dict[str, BasicBlock]:
    return {name: module for name, module in net.named_modules() if isinstance(module, BasicBlock)}


def trained_a_little(net: ResNet18) -> ResNet18:
    """A few passes, so that running statistics are not those of a new network."""
    with torch.no_grad():
        for _ in range(2):
            net(images(8), Route.DENSE)
            net(images(8), Route.GATED)
    return net


def test_published_defaults() -> None:
    options = DGNetOptions()
    assert options.temperature == pytest.approx(2 / 3)
    assert (options.reduction, options.noise, options.penalty, options.bound) == (4, 1.0, 5.0, 1.0)


def test_gate_layers_are_bias_free_1x1_convolutions_of_a_quarter_the_width() -> None:
    gate = make_gate(in_channels=16, channels=24)
    shapes = [tuple(m.weight.shape) for m in gate.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(4, 16, 1, 1), (24, 4, 1, 1)]
    assert all(m.bias is None for m in gate.modules() if isinstance(m, nn.Conv2d))


# Masks


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exactly_0_or_1(training: bool) -> None:
    net = trained_a_little(network()).train(training)
    _, masks = net(images(), Route.GATED)
    assert len(masks) == 8
    for name, mask in masks.items():
        assert set(mask.unique().tolist()) <= {0.0, 1.0}, name
    every = torch.cat([mask.flatten() for mask in masks.values()])
    assert set(every.unique().tolist()) == {0.0, 1.0}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_straight_through_is_exactly_the_step_at_one_half(values: list[float]) -> None:
    hard = straight_through(torch.tensor(values, dtype=torch.float32))
    assert hard.tolist() == [1.0 if value >= 0.5 else 0.0 for value in values]


@pytest.mark.parametrize("training", [True, False])
def test_gated_route_with_open_masks_equals_dense_route_bit_for_bit(training: bool) -> None:
    net = trained_a_little(network()).train(training)
    seen = []

    def force_open(_gate: nn.Module, _inputs: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        seen.append(mask)
        return torch.ones_like(mask)

    for gate in gates_of(net):
        gate.register_forward_hook(force_open)
    gated, masks = net(images(), Route.GATED)
    dense, none = net(images(), Route.DENSE)
    assert len(seen) == len(masks) == 8
    assert not none
    assert not all(bool((mask == 1).all()) for mask in seen), "the gates were open anyway"
    assert torch.equal(gated, dense)


def test_shut_masks_change_the_features() -> None:
    net = trained_a_little(network()).eval()
    dense, _ = net(images(), Route.DENSE)
    gated, masks = net(images(), Route.GATED)
    assert any(bool((mask == 0).any()) for mask in masks.values())
    assert not torch.allclose(gated, dense)


@pytest.mark.parametrize("training", [True, False])
def test_mask_zeroes_exactly_the_hidden_channels(training: bool) -> None:
    net = trained_a_little(network()).train(training)
    hidden: dict[str, Tensor] = {}
    normalised: dict[str, Tensor] = {}
    for name, block in blocks_of(net).items():
        block.conv2.register_forward_pre_hook(lambda _m, args, name=name: hidden.update({name: args[0]}))
        block.norm1.register_forward_hook(lambda _m, _a, out, name=name: normalised.update({name: out}))
    _, masks = net(images(), Route.GATED)
    assert len(hidden) == 8
    shut = 0
    for name, activation in hidden.items():
        mask = masks[f"{name}.hidden"]
        active = normalised[name].clamp_min(0)
        for image in range(mask.shape[0]):
            for channel in range(mask.shape[1]):
                if mask[image, channel] == 1:
                    assert torch.equal(activation[image, channel], active[image, channel])
                else:
                    shut += 1
                    assert not activation[image, channel].any()
    assert shut > 0


def test_row_of_conv1_and_column_of_conv2_of_a_shut_channel_are_not_needed() -> None:
    net = trained_a_little(network()).eval()
    one = images(1)
    with torch.no_grad():
        before, masks = net(one, Route.GATED)
        poisoned = 0
        for name, block in blocks_of(net).items():
            shut = masks[f"{name}.hidden"][0] == 0
            poisoned += int(shut.sum())
            block.conv1.weight[shut] = 1e3
            block.conv2.weight[:, shut] = -1e3
        after, _ = net(one, Route.GATED)
        dense, _ = net(one, Route.DENSE)
    assert poisoned > 0
    assert torch.equal(before, after)
    assert not torch.allclose(before, dense)


def test_gate_decides_on_the_input_of_its_block() -> None:
    net = trained_a_little(network()).eval()
    of_block: dict[str, Tensor] = {}
    of_gate: dict[str, Tensor] = {}
    for name, block in blocks_of(net).items():
        block.register_forward_pre_hook(lambda _m, args, name=name: of_block.update({name: args[0]}))
        assert block.hidden.gate is not None
        block.hidden.gate.register_forward_pre_hook(lambda _m, args, name=name: of_gate.update({name: args[0]}))
    net(images(), Route.GATED)
    assert len(of_gate) == 8
    assert all(torch.equal(of_gate[name], of_block[name]) for name in of_block)


# The dense route


def test_dense_route_never_runs_a_gate() -> None:
    net = network()

    def refuse(*_args: object) -> None:
        raise AssertionError("a gate ran on the dense route")

    for gate in gates_of(net):
        for module in gate.modules():
            module.register_forward_pre_hook(refuse)
    for training in (True, False):
        _, masks = net.train(training)(images(), Route.DENSE)
        assert masks == {}
        with pytest.raises(AssertionError, match="a gate ran"):
            net(images(), Route.GATED)


def test_dense_route_leaves_gates_without_gradient_and_statistics_alone() -> None:
    net = network()
    before = [gate.norm.running_mean.clone() for gate in gates_of(net)]
    net(images(), Route.DENSE)[0].square().mean().backward()
    for gate, mean in zip(gates_of(net), before, strict=True):
        assert all(p.grad is None for p in gate.parameters())
        assert torch.equal(gate.norm.running_mean, mean)
    assert all(p.grad is not None for name, p in net.named_parameters() if ".gate." not in name)


# Gradients of the gates


def losses_of(net: ResNet18) -> dict[str, Tensor]:
    features, masks = net(images(8), Route.GATED)
    trace = Trace(masks, net.cost_model(12))
    return {
        "objective": features.square().mean(),
        **DGNet(DGNetOptions()).losses(trace, budget=0.1, progress=0.5),
    }


@pytest.mark.parametrize("name", ["objective", "budget"])
def test_every_gate_gets_gradient_from_both_losses(name: str) -> None:
    net = network()
    losses_of(net)[name].backward()
    gates = gates_of(net)
    assert len(gates) == 8
    for gate in gates:
        for parameter in gate.parameters():
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
        assert gate.excite.weight.grad.abs().max() > 0
        assert gate.squeeze.weight.grad.abs().max() > 0


def test_straight_through_gradient_is_that_of_the_tempered_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[-1.5, -0.2, 0.0, 0.4, 2.0, 0.9]], requires_grad=True)
    noise = torch.tensor([[0.3, 0.7, 0.0, -1.1, -0.4, -0.9001]])
    upstream = torch.tensor([[1.0, -2.0, 3.0, 0.5, -1.0, 4.0]])
    gate = make_gate().train()
    monkeypatch.setattr(gate, "logits", lambda _x: raw)
    monkeypatch.setattr(dgnet, "logistic_noise", lambda _logits: noise)
    mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
    assert mask.tolist() == [[0, 1, 1, 0, 1, 0]]
    (mask * upstream).sum().backward()
    tau = 2 / 3
    for i in range(6):
        soft = 1 / (1 + math.exp(-(raw[0, i].item() + noise[0, i].item()) / tau))
        expected = upstream[0, i].item() * soft * (1 - soft) / tau
        assert raw.grad[0, i].item() == pytest.approx(expected, rel=1e-5)


def test_temperature_option_scales_the_gradient_not_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dgnet, "logistic_noise", torch.zeros_like)
    for tau in (0.5, 2.0):
        raw = torch.tensor([[-0.3, 0.6]], requires_grad=True)
        gate = make_gate(channels=2, options=DGNetOptions(temperature=tau)).train()
        monkeypatch.setattr(gate, "logits", lambda _x, raw=raw: raw)
        mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
        assert mask.tolist() == [[0, 1]]
        mask.sum().backward()
        soft = 1 / (1 + math.exp(-0.6 / tau))
        assert raw.grad[0, 1].item() == pytest.approx(soft * (1 - soft) / tau, rel=1e-5)


# Logits and noise


@pytest.mark.parametrize("training", [True, False])
def test_logits_by_hand(training: bool) -> None:
    torch.manual_seed(2)
    gate = make_gate(in_channels=8, channels=5).train(training)
    nn.init.normal_(gate.norm.weight)
    nn.init.normal_(gate.norm.bias)
    gate.norm.running_mean.normal_()
    gate.norm.running_var.uniform_(0.5, 2)
    w1 = gate.squeeze.weight.detach().double().numpy()[:, :, 0, 0]
    w2 = gate.excite.weight.detach().double().numpy()[:, :, 0, 0]
    scale, shift = (t.detach().double().numpy() for t in (gate.norm.weight, gate.norm.bias))
    x = torch.randn(6, 8, 3, 5)
    context = x.double().numpy().sum(axis=(2, 3)) / 15
    squeezed = context @ w1.T
    if training:
        mean = squeezed.sum(axis=0) / 6
        spread = ((squeezed - mean) ** 2).sum(axis=0) / 6
    else:
        mean, spread = (t.double().numpy() for t in (gate.norm.running_mean, gate.norm.running_var))
    normalised = (squeezed - mean) / np.sqrt(spread + 1e-5) * scale + shift
    expected = np.where(normalised > 0, normalised, 0) @ w2.T
    np.testing.assert_allclose(gate.logits(x).detach().numpy(), expected, rtol=1e-3, atol=1e-5)


def test_evaluation_mask_is_logits_at_least_0_without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(channels=5).eval()
    raw = torch.tensor([[-3.0, -1e-4, 0.0, 1e-4, 3.0]])
    monkeypatch.setattr(gate, "logits", lambda _x: raw)
    state = torch.get_rng_state()
    mask = gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0])
    assert mask.tolist() == [[0, 0, 1, 1, 1]]
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    net = trained_a_little(network())
    first, second = (torch.cat(list(net(images(), Route.GATED)[1].values()), 1) for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    first, second = (torch.cat(list(net(images(), Route.GATED)[1].values()), 1) for _ in range(2))
    assert torch.equal(first, second)


def test_noise_is_standard_logistic() -> None:
    torch.manual_seed(0)
    count = 20_000
    noise = logistic_noise(torch.zeros(count // 10, 10)).flatten().double().sort().values
    assert torch.isfinite(noise).all()
    cdf = 1 / (1 + torch.exp(-noise))
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((cdf - steps[:-1]).abs(), (cdf - steps[1:]).abs()).max().item()
    assert distance < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov at 1 %
    assert noise.var().item() == pytest.approx(math.pi**2 / 3, rel=0.05)


def test_noise_option_scales_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = torch.tensor([[-1.5, 0.5, -0.1]])
    monkeypatch.setattr(dgnet, "logistic_noise", lambda _logits: torch.tensor([[2.0, -0.8, 0.0]]))
    for scale, expected in [(1.0, [1, 0, 0]), (0.5, [0, 1, 0]), (0.0, [0, 1, 0])]:
        gate = make_gate(channels=3, options=DGNetOptions(noise=scale)).train()
        monkeypatch.setattr(gate, "logits", lambda _x: raw)
        assert gate(torch.zeros(1, 8, 3, 3), gate.thresholds[0]).tolist() == [expected], scale


def test_noise_differs_between_images_and_channels() -> None:
    noise = logistic_noise(torch.zeros(50, 40))
    assert noise.unique().numel() > 1990


def test_training_gate_opens_with_probability_sigmoid_of_its_logit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])
    gate = make_gate(channels=5).train()
    monkeypatch.setattr(gate, "logits", lambda _x: logits.expand(20_000, 5))
    opened = gate(torch.zeros(1, 8, 1, 1), gate.thresholds[0]).mean(dim=0)
    for rate, logit in zip(opened.tolist(), logits.tolist(), strict=True):
        assert rate == pytest.approx(1 / (1 + math.exp(-logit)), abs=0.014)


@pytest.mark.parametrize("training", [True, False])
def test_mask_has_the_dtype_of_the_input_and_logits_are_float32(training: bool) -> None:
    gate = make_gate().train(training)
    x = torch.randn(4, 8, 3, 3).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gate.logits(x).dtype is torch.float32
        assert gate(x, gate.thresholds[0]).dtype is torch.bfloat16


def test_threshold_shuts_logits_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = make_gate(channels=4).eval()
    monkeypatch.setattr(gate, "logits", lambda _x: torch.tensor([[-1.0, 0.5, 1.52, 2.0]]))
    set_threshold(gate, 1.5)
    assert gate(torch.zeros(1, 8, 1, 1), gate.thresholds[0]).tolist() == [[0, 0, 1, 1]]


# Losses

COST = CostModel(
    (
        LayerCost("stem", 100),
        LayerCost("a", 600, ("s",)),
        LayerCost("b", 300, ("t",)),
        LayerCost("s.gate", 6, gate=True),
        LayerCost("t.gate", 4, gate=True),
    ),
    {"s": 4, "t": 2},
)
MASKS = {"s": torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0]]), "t": torch.tensor([[0.0, 0], [1, 1]])}
# image 1: 100 + 300 + 0 + 10 = 410 of 1000; image 2: 100 + 150 + 300 + 10 = 560; densities 3/8 and 1/2
RATIO = (0.41 + 0.56) / 2


def plain_bound(densities: list[float], budget: float, p: float) -> float:
    target = math.sqrt(budget)
    total = 0.0
    for d in densities:
        total += max(0.0, p * target - d) ** 2
        total += max(0.0, d - 1 + p - p * target) ** 2
    return total / len(densities)


@pytest.mark.parametrize("budget", [0.1, 0.3, 0.9])
def test_penalty_by_hand(budget: float) -> None:
    losses = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), budget, progress=0.2)
    assert set(losses) == {"budget", "bound"}
    assert losses["budget"].item() == pytest.approx(5 * (RATIO - budget) ** 2, rel=1e-5)


def test_penalty_squares_the_mean_ratio_not_each_image() -> None:
    losses = DGNet(DGNetOptions(penalty=3)).losses(Trace(MASKS, COST), RATIO, progress=0.2)
    assert losses["budget"].item() == pytest.approx(0, abs=1e-12)


def test_weights_of_the_losses_are_options() -> None:
    trace = Trace(MASKS, COST)
    default = DGNet(DGNetOptions()).losses(trace, 0.9, progress=0)
    doubled = DGNet(DGNetOptions(penalty=10, bound=2)).losses(trace, 0.9, progress=0)
    for name in ("budget", "bound"):
        assert default[name].item() > 0
        assert doubled[name].item() == pytest.approx(2 * default[name].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("p", "budget", "expected"),
    [
        # d* = 0.5: at p = 1 every density is pulled to 0.5
        (1.0, 0.25, (0.3**2 + 0.0 + 0.4**2) / 3),
        # at p = 0.5 the interval is [0.25, 0.75]
        (0.5, 0.25, (0.05**2 + 0.0 + 0.15**2) / 3),
        (0.0, 0.25, 0.0),
        # d* = 0.8: at p = 0.5 the interval is [0.4, 0.9]
        (0.5, 0.64, (0.2**2 + 0.0 + 0.0) / 3),
    ],
)
def test_bound_by_hand(p: float, budget: float, expected: float) -> None:
    densities = torch.tensor([0.2, 0.5, 0.9])
    assert bound(densities, budget, p).item() == pytest.approx(expected, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    densities=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    budget=st.floats(0.01, 1),
    p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_bound_is_the_formula_of_the_method(densities: list[float], budget: float, p: float) -> None:
    value = bound(torch.tensor(densities, dtype=torch.float64), budget, p).item()
    assert value == pytest.approx(plain_bound(densities, budget, p), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("progress", [0.0, math.log(2) / 10, 0.2, 1.0])
def test_bound_is_relaxed_as_exp_of_minus_ten_progress(progress: float) -> None:
    for budget in (0.01, 0.3, 1.0):
        value = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), budget, progress)["bound"].item()
        expected = plain_bound([3 / 8, 1 / 2], budget, math.exp(-10 * progress))
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("epoch", [0, 10, 25])
def test_at_500_epochs_the_bound_is_relaxed_as_published(epoch: int) -> None:
    value = DGNet(DGNetOptions()).losses(Trace(MASKS, COST), 0.81, epoch / 500)["bound"].item()
    expected = plain_bound([3 / 8, 1 / 2], 0.81, math.exp(-0.02 * epoch))
    assert expected > 0
    assert value == pytest.approx(expected, rel=1e-5)


def test_bound_at_a_tenth_at_first_pushes_gates_open_against_the_budget() -> None:
    mask = torch.full((2, 4), 0.2, requires_grad=True)
    trace = Trace({"s": mask, "t": mask[:, :2]}, COST)
    losses = DGNet(DGNetOptions()).losses(trace, 0.1, progress=0)
    towards_open = -torch.autograd.grad(losses["bound"], mask, retain_graph=True)[0]
    towards_budget = -torch.autograd.grad(losses["budget"], mask)[0]
    assert (towards_open > 0).all()
    assert (towards_budget < 0).all()


def test_dgnet_gates_channel_sites_only() -> None:
    scheme = DGNet(DGNetOptions())
    assert scheme.make_gate(GateSite("b.branch", Granularity.BRANCH, 8, 1, ())) is None
    assert isinstance(scheme.make_gate(GateSite("b.hidden", Granularity.CHANNEL, 8, 8, ())), DGNetGate)
