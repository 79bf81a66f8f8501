"""Options of the backbone ``timm``; imports neither torch nor timm."""

from __future__ import annotations

from pydantic import Field

import ssl_dc


class TimmOptions(ssl_dc.PartOptions):
    """Options of the backbone ``timm``."""

    name: str = "timm"
    model: str = Field(
        "resnet18",
        min_length=1,
        description="The network, by timm's name for it, such as resnet10t or mobilenetv3_small_100.",
    )
    pretrained: bool = Field(False, description="Start from timm's pretrained weights, which it downloads.")
