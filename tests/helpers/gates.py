"""What the tests of both built-in gates share: the gate's equation in float64, its noise, its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssl_dc.gating.base import Gate, gates_of
from ssl_dc.gating.convnet_aig import ConvNetAIGGate
from ssl_dc.gating.cost import CostModel, LayerCost
from ssl_dc.gating.dgnet import DGNetGate
from ssl_dc.gating.options import ConvNetAIGOptions, DGNetOptions
from ssl_dc.gating.sites import GateSite, Granularity


def dgnet_gate(in_channels: int = 8, channels: int = 6, options: DGNetOptions | None = None) -> DGNetGate:
    """A gate of DGNet by itself."""
    return DGNetGate(GateSite("block.hidden", Granularity.CHANNEL, in_channels, channels, ()), options or DGNetOptions())


def convnet_aig_gate(in_channels: int = 8, options: ConvNetAIGOptions | None = None) -> ConvNetAIGGate:
    """A gate of ConvNet-AIG by itself."""
    site = GateSite("block.branch", Granularity.BRANCH, in_channels, 1, ())
    return ConvNetAIGGate(site, options or ConvNetAIGOptions())


def cost_of_two_sites(channels: Mapping[str, int]) -> CostModel:
    """1,000 MACs dense, of which site ``s`` gates 600 and site ``t`` 300; the gates cost 6 and 4."""
    layers = (
        LayerCost("stem", 100),
        LayerCost("a", 600, ("s",)),
        LayerCost("b", 300, ("t",)),
        LayerCost("s.gate", 6, gate=True),
        LayerCost("t.gate", 4, gate=True),
    )
    return CostModel(layers, channels)


def drawn_anew(gate: DGNetGate | ConvNetAIGGate) -> None:
    """Give the batch norm of a gate affine parameters and running statistics that show in what it computes."""
    nn.init.normal_(gate.norm.weight)
    nn.init.normal_(gate.norm.bias)
    gate.norm.running_mean.normal_()
    gate.norm.running_var.uniform_(0.5, 2)


def plain_logits(gate: DGNetGate | ConvNetAIGGate, x: Tensor) -> NDArray[np.float64]:
    """W2 . ReLU(BN(W1 . mean(x))), with the gate's biases where it has any, in float64 (method sections 4 and 5)."""

    def double(tensor: Tensor | None) -> NDArray[np.float64]:
        array: NDArray[np.float64] = np.zeros(()) if tensor is None else tensor.detach().double().numpy()
        return array

    w1, w2 = (double(conv.weight)[:, :, 0, 0] for conv in (gate.squeeze, gate.excite))
    squeezed = double(x).sum(axis=(2, 3)) / (x.shape[2] * x.shape[3]) @ w1.T + double(gate.squeeze.bias)
    if gate.training:
        mean = squeezed.sum(axis=0) / len(squeezed)
        spread = ((squeezed - mean) ** 2).sum(axis=0) / len(squeezed)
    else:
        mean, spread = double(gate.norm.running_mean), double(gate.norm.running_var)
    normalised = (squeezed - mean) / np.sqrt(spread + 1e-5) * double(gate.norm.weight) + double(gate.norm.bias)
    logits: NDArray[np.float64] = np.where(normalised > 0, normalised, 0) @ w2.T + double(gate.excite.bias)
    return logits


def kolmogorov_smirnov(sample: Tensor, cdf: Callable[[Tensor], Tensor]) -> float:
    """The largest distance between the distribution of a sample and a distribution function, times the root of its size.

    Below 1.63 in 99 of 100 samples that have that distribution.
    """
    values = sample.flatten().double().sort().values
    steps = torch.arange(len(values) + 1, dtype=torch.float64) / len(values)
    expected = cdf(values)
    distance = torch.maximum((expected - steps[:-1]).abs(), (expected - steps[1:]).abs()).max().item()
    return float(distance * len(values) ** 0.5)


def assert_every_gate_learns(network: nn.Module, count: int = 8) -> None:
    """After a backward pass every parameter of every gate has a gradient, and its weights one that is not 0."""
    gates: list[Gate] = gates_of(network)
    assert len(gates) == count
    for gate in gates:
        for name, parameter in gate.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        for layer in ("squeeze", "excite"):
            gradient = gate.get_parameter(f"{layer}.weight").grad
            assert gradient is not None
            assert gradient.abs().max() > 0, layer


def assert_dense_route_leaves_gates_alone(network: nn.Module, features: Callable[[], Tensor]) -> None:
    """A backward pass of the dense route gives no gate a gradient, and moves no running mean of a gate."""
    before = [gate.get_buffer("norm.running_mean").clone() for gate in gates_of(network)]
    features().square().mean().backward()
    assert before
    for gate, mean in zip(gates_of(network), before, strict=True):
        assert all(p.grad is None for p in gate.parameters())
        assert torch.equal(gate.get_buffer("norm.running_mean"), mean)
    assert all(p.grad is not None for name, p in network.named_parameters() if ".gate." not in name)
