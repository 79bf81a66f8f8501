"""Small networks and images."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.backbones.options import ResNet18Options, ResNet34Options, ResNet50Options
from ssl_dc.backbones.resnet import ResNet, ResNet18, ResNet34, ResNet50
from ssl_dc.gating.base import GateFactory, no_gates
from ssl_dc.gating.convnet_aig import ConvNetAIG
from ssl_dc.gating.dgnet import DGNet
from ssl_dc.gating.options import ConvNetAIGOptions, DGNetOptions
from ssl_dc.norms.base import NormPolicy
from ssl_dc.norms.options import SeparateNormsOptions, SharedNormsOptions
from ssl_dc.norms.separate import SeparateNorms
from ssl_dc.norms.shared import SharedNorms

SHARED = SharedNorms(SharedNormsOptions())
SEPARATE = SeparateNorms(SeparateNormsOptions())
DGNET = DGNet(DGNetOptions())
CONVNET_AIG = ConvNetAIG(ConvNetAIGOptions())

RESNETS: dict[str, tuple[type[ResNet], type[ResNet18Options | ResNet34Options | ResNet50Options]]] = {
    "resnet18": (ResNet18, ResNet18Options),
    "resnet34": (ResNet34, ResNet34Options),
    "resnet50": (ResNet50, ResNet50Options),
}


def resnet(
    name: str = "resnet18",
    *,
    width: int = 8,
    stem: str = "cifar",
    stem_padding: int | None = None,
    norms: NormPolicy = SHARED,
    gates: GateFactory = no_gates,
) -> ResNet:
    """A ResNet whose weights are always the same."""
    torch.manual_seed(0)
    network, options = RESNETS[name]
    return network(options(width=width, stem=stem, stem_padding=stem_padding), norms.layer, gates)  # type: ignore[arg-type]


def random_images(count: int = 4, size: int = 12) -> Tensor:
    """Images (count, 3, size, size) that are always the same."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))
