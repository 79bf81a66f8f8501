"""ConvNet-AIG's gates inside a network: what a skipped branch leaves and costs (method section 5)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.gates import assert_dense_route_leaves_gates_alone, assert_every_gate_learns
from helpers.macs import branch_gated_by_hand, dense_by_hand
from helpers.networks import CONVNET_AIG, random_images, resnet
from ssl_dc.backbones.resnet import BasicBlock, ResNet
from ssl_dc.gating.base import gates_of, set_threshold
from ssl_dc.gating.convnet_aig import ConvNetAIG, ConvNetAIGGate
from ssl_dc.gating.cost import Trace
from ssl_dc.gating.options import ConvNetAIGOptions
from ssl_dc.routes import Route

WIDTH, SIZE = 8, 12


def network(scheme: ConvNetAIG = CONVNET_AIG) -> ResNet:
    return resnet(width=WIDTH, gates=scheme.make_gate)


def undecided(net: ResNet) -> ResNet:
    """Gates whose decisions differ between images and blocks, as those of a new network hardly do."""
    with torch.no_grad():
        for gate in gates_of(net):
            assert isinstance(gate, ConvNetAIGGate)
            gate.excite.weight.normal_()
            gate.excite.bias.zero_()
            gate.norm.running_mean.normal_(std=0.1)
    return net


def test_all_branches_run_at_the_start_in_evaluation() -> None:
    _, masks = network().eval()(random_images(8), Route.GATED)
    assert all(bool((mask == 1).all()) for mask in masks.values())


@pytest.mark.parametrize("training", [True, False])
def test_masks_are_exactly_0_or_1(training: bool) -> None:
    net = undecided(network()).train(training)
    _, masks = net(random_images(32), Route.GATED)
    assert list(masks) == [f"stages.layer{stage}.{block}.branch" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert all(tuple(mask.shape) == (32, 1) for mask in masks.values())
    assert set(torch.cat(list(masks.values())).unique().tolist()) == {0.0, 1.0}


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    net = undecided(network())
    x = random_images(32)
    first, second = (torch.cat(list(net(x, Route.GATED)[1].values()), 1) for _ in range(2))
    assert not torch.equal(first, second)
    net.eval()
    first, second = (torch.cat(list(net(x, Route.GATED)[1].values()), 1) for _ in range(2))
    assert torch.equal(first, second)


def test_output_of_a_skipped_block_is_its_shortcut() -> None:
    net = undecided(network()).eval()
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    blocks = {name: module for name, module in net.named_modules() if isinstance(module, BasicBlock)}
    for name, block in blocks.items():
        block.register_forward_hook(lambda _m, args, out, name=name: seen.update({name: (args[0], out)}))
    _, masks = net(random_images(8), Route.GATED)
    skipped = 0
    for name, block in blocks.items():
        x, out = seen[name]
        shortcut = torch.relu(x if block.shortcut is None else block.shortcut(x, Route.GATED))
        whole = block(x, Route.DENSE, {})
        for image, opened in enumerate(masks[f"{name}.branch"].flatten().tolist()):
            torch.testing.assert_close(out[image], whole[image] if opened else shortcut[image])
            skipped += 1 - int(opened)
    assert 0 < skipped < 8 * len(blocks), "the test is idle if no block or every block is skipped"


def test_skipped_branch_costs_the_shortcut_and_the_gate_only() -> None:
    cost = network().cost_model(SIZE)
    assert cost.dense_macs == dense_by_hand("resnet18", WIDTH, SIZE, "cifar")
    rows = [[1] * 8, [0] * 8, [1, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 1, 0, 1, 0, 1]]
    masks = {site: torch.tensor([[float(row[block])] for row in rows]) for block, site in enumerate(cost.channels)}
    expected = [branch_gated_by_hand("resnet18", WIDTH, SIZE, "cifar", row) for row in rows]
    assert cost.gated_macs(masks).tolist() == expected
    assert cost.floor_macs == expected[1]


def test_cost_of_the_papers_network() -> None:
    cost = resnet(width=64, gates=CONVNET_AIG.make_gate).cost_model(32)
    assert cost.dense_macs == 703_560_448
    assert cost.floor_macs == branch_gated_by_hand("resnet18", 64, 32, "cifar", [0] * 8)


def test_threshold_makes_the_network_cheaper_and_never_dearer() -> None:
    net = undecided(network()).eval()
    x, cost = random_images(32), net.cost_model(SIZE)
    paid = []
    for threshold in (-32.0, -3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0, 32.0):
        set_threshold(net, threshold)
        with torch.no_grad():
            paid.append(cost.gated_macs(net(x, Route.GATED)[1]).mean().item())
    assert paid == sorted(paid, reverse=True)
    assert len(set(paid)) > 4
    assert paid[0] == branch_gated_by_hand("resnet18", WIDTH, SIZE, "cifar", [1] * 8)
    assert paid[-1] == branch_gated_by_hand("resnet18", WIDTH, SIZE, "cifar", [0] * 8)


@pytest.mark.parametrize("name", ["objective", "rate", "budget"])
def test_every_gate_gets_gradient_from_every_loss(name: str) -> None:
    scheme = ConvNetAIG(ConvNetAIGOptions(loss="budget" if name == "budget" else "target_rate"))
    net = network(scheme)
    features, masks = net(random_images(32), Route.GATED)
    terms = {
        "objective": features.square().mean(),
        **scheme.losses(Trace(masks, net.cost_model(SIZE)), 0.1, 0.5),
    }
    terms[name].backward()
    assert_every_gate_learns(net)
    for gate in gates_of(net):
        assert gate.get_parameter("excite.bias").grad.abs().min() > 0


def test_dense_route_never_runs_a_gate_and_leaves_it_without_gradient() -> None:
    net = network()
    assert net(random_images(), Route.DENSE)[1] == {}
    assert_dense_route_leaves_gates_alone(net, lambda: net(random_images(), Route.DENSE)[0])
