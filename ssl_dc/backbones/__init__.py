"""Network families; one file each."""

from __future__ import annotations

from ssl_dc.hookspecs import hookimpl
from ssl_dc.parts import Part


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
    ]
