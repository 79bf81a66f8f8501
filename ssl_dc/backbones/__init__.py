"""Network families; one file each."""

from __future__ import annotations

from ssl_dc.plugins.hookspecs import hookimpl
from ssl_dc.plugins.parts import Part


@hookimpl
def ssl_dc_backbones() -> list[Part]:
    """The built-in backbones."""
    return [
        Part(
            name="resnet18",
            target="ssl_dc.backbones.resnet:ResNet18",
            options="ssl_dc.backbones.options:ResNet18Options",
            summary="ResNet-18 of basic blocks (the paper's encoder).",
        ),
        Part(
            name="resnet34",
            target="ssl_dc.backbones.resnet:ResNet34",
            options="ssl_dc.backbones.options:ResNet34Options",
            summary="ResNet-34 of basic blocks.",
        ),
        Part(
            name="resnet50",
            target="ssl_dc.backbones.resnet:ResNet50",
            options="ssl_dc.backbones.options:ResNet50Options",
            summary="ResNet-50 of bottleneck blocks, with two channel sites a block.",
        ),
    ]
