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
        description="The network, by timm's name for it, such as resnet10t, mobilenetv3_small_100 or vit_tiny_patch16_224.",
    )
    pretrained: bool = Field(False, description="Start from timm's pretrained weights, which it downloads.")
    img_size: int | None = Field(
        None,
        ge=1,
        description="Side in pixels of the images of a network that takes one size only, such as a ViT; by default timm's.",
    )
    patch_size: int | None = Field(
        None, ge=1, description="Side in pixels of the patches that become the tokens of a ViT; by default timm's."
    )

    def in_words(self) -> str:
        """The network by timm's name for it."""
        return f"timm {self.model}"
