"""DGNet's gates inside a network: what a mask shuts, and what the dense route leaves alone (method section 4)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from helpers.gates import assert_dense_route_leaves_gates_alone, assert_every_gate_learns
from helpers.networks import DGNET, random_images, resnet
from ssl_dc.backbones.resnet import BasicBlock, ResNet
from ssl_dc.gating.base import gates_of
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.dgnet import DGNet
from ssl_dc.gating.options import DGNetOptions
from ssl_dc.routes import Route


def network() -> ResNet:
    return resnet(gates=DGNET.make_gate)


def blocks_of(net: ResNet) -> dict[str, BasicBlock]:
    return {name: module for name, module in net.named_modules() if isinstance(module, BasicBlock)}


def trained_a_little(net: ResNet) -> ResNet:
    """A few passes, so that running statistics are not those of a new network."""
    with torch.no_grad():
        for _ in range(2):
            net(random_images(8), Route.DENSE)
            net(random_images(8), Route.GATED)
    return net


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exactly_0_or_1(training: bool) -> None:
    net = trained_a_little(network()).train(training)
    _, masks = net(random_images(), Route.GATED)
    assert len(masks) == 8
    for name, mask in masks.items():
        assert set(mask.unique().tolist()) <= {0.0, 1.0}, name
    every = torch.cat([mask.flatten() for mask in masks.values()])
    assert set(every.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("training", [True, False])
def test_gated_route_with_open_masks_equals_dense_route_bit_for_bit(training: bool) -> None:
    net = trained_a_little(network()).train(training)
    seen = []

    def force_open(_gate: nn.Module, _inputs: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        seen.append(mask)
        return torch.ones_like(mask)

    for gate in gates_of(net):
        gate.register_forward_hook(force_open)
    gated, masks = net(random_images(), Route.GATED)
    dense, none = net(random_images(), Route.DENSE)
    assert len(seen) == len(masks) == 8
    assert not none
    assert not all(bool((mask == 1).all()) for mask in seen), "the gates were open anyway"
    assert torch.equal(gated, dense)


def test_shut_masks_change_the_features() -> None:
    net = trained_a_little(network()).eval()
    dense, _ = net(random_images(), Route.DENSE)
    gated, masks = net(random_images(), Route.GATED)
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
    _, masks = net(random_images(), Route.GATED)
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
    one = random_images(1)
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
    net(random_images(), Route.GATED)
    assert len(of_gate) == 8
    assert all(torch.equal(of_gate[name], of_block[name]) for name in of_block)


def test_dense_route_never_runs_a_gate() -> None:
    net = network()

    def refuse(*_args: object) -> None:
        raise AssertionError("a gate ran on the dense route")

    for gate in gates_of(net):
        for module in gate.modules():
            module.register_forward_pre_hook(refuse)
    for training in (True, False):
        _, masks = net.train(training)(random_images(), Route.DENSE)
        assert masks == {}
        with pytest.raises(AssertionError, match="a gate ran"):
            net(random_images(), Route.GATED)


def test_dense_route_leaves_gates_without_gradient_and_statistics_alone() -> None:
    net = network()
    assert_dense_route_leaves_gates_alone(net, lambda: net(random_images(), Route.DENSE)[0])


def losses_of(net: ResNet) -> dict[str, Tensor]:
    features, masks = net(random_images(8), Route.GATED)
    trace = Trace(masks, net.cost_model(12))
    return {
        "objective": features.square().mean(),
        **DGNet(DGNetOptions()).losses(trace, budget=0.1, progress=0.5),
    }


@pytest.mark.parametrize("name", ["objective", "budget"])
def test_every_gate_gets_gradient_from_both_losses(name: str) -> None:
    net = network()
    losses_of(net)[name].backward()
    assert_every_gate_learns(net)


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    net = trained_a_little(network())
    first, second = (torch.cat(list(net(random_images(), Route.GATED)[1].values()), 1) for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    first, second = (torch.cat(list(net(random_images(), Route.GATED)[1].values()), 1) for _ in range(2))
    assert torch.equal(first, second)
