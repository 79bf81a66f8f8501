"""ResNets of timm's with a stem of any width, kernel and stride.

The stem of timm's own ResNet is always a 7x7 convolution of stride 2 to 64 channels, and a max-pool. The networks that are
registered here have another stem, and are timm's ResNet in all else. This file needs timm and torch only::

    import sys

    import timm

    sys.path.insert(0, FOLDER)  # where this file is
    import ssl_dc_resnet

    network = timm.create_model(f"local-dir:{FOLDER}", pretrained=True)
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet, downsample_conv
from torch import nn


class StemResNet(ResNet):
    """timm's ResNet with another stem.

    Args:
        stem: ``channels``, ``kernel_size``, ``stride`` and ``padding`` of the first convolution, and ``pool``: whether a
            3x3 max-pool of stride 2 follows.
        **arguments: Those of timm's ResNet.
    """

    conv1: Any
    maxpool: Any
    layer1: Any

    def __init__(self, *, stem: dict[str, Any], **arguments: Any) -> None:
        super().__init__(**arguments)
        channels, kernel, stride, padding = (stem[key] for key in ("channels", "kernel_size", "stride", "padding"))
        self.conv1 = nn.Conv2d(arguments.get("in_chans", 3), channels, kernel, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        if not stem["pool"]:
            self.maxpool = nn.Identity()
        self._take_channels(self.layer1[0], channels)
        before_stages = stride * (2 if stem["pool"] else 1)
        reductions = [stride, *(before_stages * 2**number for number in range(len(self.feature_info) - 1))]
        for stage, reduction in zip(self.feature_info, reductions, strict=True):
            stage["reduction"] = reduction
        self.feature_info[0]["num_chs"] = channels

    @staticmethod
    def _take_channels(first: BasicBlock | Bottleneck, channels: int) -> None:
        """Make the first block, which was built for timm's stem, take so many channels."""
        if isinstance(first, BasicBlock):  # its input has the shape of its output
            first.conv1 = nn.Conv2d(channels, first.conv1.out_channels, 3, padding=1, bias=False)
            first.downsample = None
        else:
            first.conv1 = nn.Conv2d(channels, first.conv1.out_channels, 1, bias=False)
            first.downsample = downsample_conv(channels, first.conv3.out_channels, kernel_size=1)


def _build(name: str, pretrained: bool, **arguments: Any) -> nn.Module:
    network: nn.Module = build_model_with_cfg(StemResNet, name, pretrained, **arguments)
    return network


@register_model
def ssl_dc_resnet18(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-18 with the stem that its arguments name."""
    return _build("ssl_dc_resnet18", pretrained, **{"block": BasicBlock, "layers": (2, 2, 2, 2), **arguments})


@register_model
def ssl_dc_resnet34(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-34 with the stem that its arguments name."""
    return _build("ssl_dc_resnet34", pretrained, **{"block": BasicBlock, "layers": (3, 4, 6, 3), **arguments})


@register_model
def ssl_dc_resnet50(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """ResNet-50 with the stem that its arguments name."""
    return _build("ssl_dc_resnet50", pretrained, **{"block": Bottleneck, "layers": (3, 4, 6, 3), **arguments})
