"""Networks whose gates open some of what they gate, and networks drawn at random."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import ssl_dc
from ssl_dc.assemble import build_encoder
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.encoders.options import SharedEncoderOptions
from ssl_dc.encoders.shared import SharedEncoder
from ssl_dc.gating.base import Gate, PooledRule
from ssl_dc.routes import Route
from tests.helpers.networks import CONVNET_AIG, DGNET
from tests.helpers.random_blocks import ACTIVATIONS, Blocks


def random_encoder(seed: int = 0, /, size: int = 32, **settings: object) -> ssl_dc.Encoder:
    """An encoder whose norms have statistics, and whose gates open about half of what they gate."""
    given = {"data.name": "digits", "data.image_size": size, "backbone.width": 8, "budget.target": 0.9} | settings
    encoder, _ = build_encoder(resolve([uniform_layer(given, "test")]).config)
    return strewn(encoder, seed)


def strewn(encoder: ssl_dc.Encoder, seed: int) -> ssl_dc.Encoder:
    """An encoder with statistics in its norms, and thresholds at which its gates open about half of what they gate."""
    generator = torch.Generator().manual_seed(seed)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
        if isinstance(module, Gate):
            last = next((layer for layer in reversed([*module.modules()]) if isinstance(layer, nn.Conv2d)), None)
            if last is not None:
                last.weight.data.normal_(0, 3, generator=generator)
            module.thresholds.normal_(0, 0.5, generator=generator)
            if last is not None and last.bias is not None:
                last.bias.data.zero_()
    return encoder.eval()


class DrawnNetwork(NamedTuple):
    """A network drawn at random, with images and threads.

    Attributes:
        settings: Of the encoder, or if ``gating`` is among them, of :class:`tests.helpers.random_blocks.Blocks`.
        seed: Of its norms and gates, and of the images.
        route: How it is run.
        shift: Added to the thresholds of all gates.
        in_torch: Whether the gates hide their rules, so that the kernel must stop for each.
        shape: (N, 3, H, W) of the images.
        threads: How many run it.
    """

    settings: dict[str, object]
    seed: int
    route: Route
    shift: float
    in_torch: bool
    shape: tuple[int, int, int, int]
    threads: int

    def encoder(self) -> ssl_dc.Encoder:
        """The network."""
        encoder = self._blocks() if self.has_blocks else random_encoder(self.seed, **self.settings)
        for module in encoder.modules():
            if isinstance(module, Gate):
                module.thresholds += self.shift
                if self.in_torch:
                    module.pooled_rule = no_rule  # type: ignore[method-assign]
        return encoder

    @property
    def has_blocks(self) -> bool:
        """Whether it consists of blocks that are no ResNet's, which int8 refuses."""
        return "gating" in self.settings

    def _blocks(self) -> ssl_dc.Encoder:
        torch.manual_seed(self.seed)
        settings: dict[str, Any] = dict(self.settings)
        gating = DGNET if settings.pop("gating") == "dgnet" else CONVNET_AIG
        made = SharedEncoder(SharedEncoderOptions(), lambda gates: Blocks(gates, **settings), gating)
        return strewn(made, self.seed)

    def images(self) -> Tensor:
        """Images (N, 3, H, W)."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed))


def no_rule(threshold: Tensor) -> PooledRule | None:
    """The rule of a gate that must be called."""
    return None


def drawn_network(draw: random.Random, *, whole_in_kernel: bool = False) -> DrawnNetwork:
    """Any network: half of them are ResNets.

    Args:
        draw: What it is drawn from.
        whole_in_kernel: Whether the float32 kernel of AArch64 must know every step.
    """
    drawn = draw.choice([drawn_resnet, drawn_blocks])(draw)
    if not whole_in_kernel:
        return drawn
    settings = dict(drawn.settings)
    if drawn.has_blocks:
        settings["blocks"] = tuple(kind.replace("transformer", "convnext") for kind in settings["blocks"])  # type: ignore[attr-defined]
        settings["activation"] = "gelu" if settings["activation"] == "tanh" else settings["activation"]
    return drawn._replace(settings=settings, in_torch=False)


def drawn_blocks(draw: random.Random) -> DrawnNetwork:
    """Blocks of any kinds, widths, kernels and activations."""
    maps = draw.choices(["inverted", "inverted", "grouped", "convnext", "convnext last"], k=draw.randint(0, 3))
    heads, of_head = draw.choice([1, 2, 3]), draw.choice([4, 8, 16, 32])
    transformers = ["transformer"] * draw.randint(0 if maps else 1, 2)
    settings: dict[str, object] = {
        "gating": draw.choice(["dgnet", "dgnet", "convnet_aig"]),
        "blocks": (*maps, *transformers),
        "width": heads * of_head if transformers else draw.randint(2, 50),
        "hidden": draw.choice([draw.randint(2, 40), draw.randint(40, 200)]),
        "of_group": draw.randint(2, 20),
        "heads": heads,
        "kernel": draw.choice([1, 3, 3, 5, 5, 7, 7, 9]),
        "stride": draw.choice([1, 1, 2, 3]),
        "activation": draw.choice(list(ACTIVATIONS)),
    }
    return DrawnNetwork(
        settings,
        seed=draw.randrange(10**6),
        route=Route.DENSE if draw.random() < 0.15 else Route.GATED,
        shift=draw.choice([0.0, 0.0, 0.0, -1.0, 1.0, -1e9, 1e9]),
        in_torch=draw.random() < 0.1,
        shape=(draw.randint(1, 3), 3, draw.randint(1, 24), draw.randint(1, 24)),
        threads=draw.choice([1, 1, 1, 2, 3, 5]),
    )


def grouped_network(of_group: int) -> DrawnNetwork:
    """Two blocks of grouped convolutions with gates that shut groups of this many channels."""
    settings: dict[str, object] = {
        "gating": "dgnet",
        "blocks": ("grouped", "grouped"),
        "width": 12,
        "hidden": 13,
        "of_group": of_group,
        "heads": 1,
        "kernel": 3,
        "stride": 2,
        "activation": "silu",
    }
    return DrawnNetwork(settings, seed=0, route=Route.GATED, shift=0.0, in_torch=False, shape=(3, 3, 11, 13), threads=2)


def drawn_resnet(draw: random.Random) -> DrawnNetwork:
    """Any ResNet, width, stem, gating, encoder, norm policy, route, image size, batch and number of threads."""
    backbone = draw.choice(["resnet18", "resnet18", "resnet34", "resnet50"])
    widest = 16 if backbone == "resnet18" else 6
    settings: dict[str, object] = {
        "backbone.name": backbone,
        "backbone.width": 4 * min(draw.randint(1, widest), draw.randint(1, widest)),
        "backbone.stem": draw.choice(["imagenet", "cifar", "strided"]),
        "backbone.stem_padding": draw.choice([None, None, 0, 1, 2]),
        "encoder.name": draw.choice(["shared", "shared", "shared", "double"]),
        "seed": draw.randrange(10**6),
    }
    gating = draw.choice(["dgnet", "dgnet", "dgnet ordered", "convnet_aig", "convnet_aig", "prefix", "none"])
    settings["gating.name"], _, start = gating.partition(" ")
    if gating == "none":
        settings["budget.target"] = None
    else:
        settings["norm.name"] = draw.choice(["separate", "shared"])
    if start:
        settings["gating.start"] = start
    least = 1 if settings["backbone.stem_padding"] is None else 7
    return DrawnNetwork(
        settings,
        seed=draw.randrange(10**6),
        route=Route.DENSE if gating == "none" or draw.random() < 0.15 else Route.GATED,
        shift=draw.choice([0.0, 0.0, 0.0, 0.0, -1.0, 1.0, -1.0, 1.0, -1e9, 1e9]),
        in_torch=draw.random() < 0.1,
        shape=(draw.randint(1, 4), 3, draw.randint(least, 45), draw.randint(least, 45)),
        threads=draw.choice([1, 1, 1, 2, 3, 5]),
    )
