"""Looks for a way to run the gated route of a ResNet-18 on a GPU in less time than the dense one.

    python benchmarks/gpu_gated.py [--device cuda] [--batch 64] [--px 224] [--json FILE]

The network has width 64, random weights, and gates that open the same share of every block's channels, differently for each
image. Ways, in float32 (TF32 on a GPU) and in bf16:

- dense: the plan of the dense route, compiled by torch;
- masked: the gated route as it was trained, which computes all channels;
- union: convolutions compute what any image of the batch keeps. The CPU must wait for the masks, to know how much that is;
- gathered: each image has kernels of its own, with as many channels as the image with the most keeps. All are one grouped
  convolution;
- static: each block keeps the channels that are open most often, as many as are open on average; compiled. It computes
  something else: it is what a GPU could gain if masks did not depend on the image.

All ways take turns. Ratios are medians over calls. The gates of union and gathered decide in float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gated_speed import SIZES, SWEEP, network, with_rates
from torch import Tensor

import ssl_dc
from ssl_dc.bench.timing import in_turns
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.eager import compute, decided
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.static import make_static
from ssl_dc.compiled.steps.gates import Decide
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.routes import Route

Way = Callable[[Tensor], Tensor]
"""Takes images (N, 3, H, W) in float32 on the device, and gives features (N, feature_dim)."""


class BatchRun:
    """Runs whole batches through the plan of a gated route.

    Args:
        plan: A fused plan whose steps are those of a ResNet with channel gates.
        device: Where it runs.
        dtype: In which convolutions multiply.
    """

    def __init__(self, plan: Plan, device: torch.device, dtype: torch.dtype) -> None:
        self.plan = plan
        self.dtype = dtype
        self.weights = {
            step.output: (step.weight.to(device, dtype, copy=True), step.bias.to(device, dtype, copy=True))
            for step in plan.steps
            if isinstance(step, Conv)
        }

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (N, feature_dim) of images (N, 3, H, W)."""
        values: dict[str, Any] = {self.plan.input: images.to(self.dtype)}
        masks: dict[str, Tensor] = {}
        for step in self.plan.steps:
            if isinstance(step, Decide):
                masks[step.site.name] = decided(step, [values[step.input].float()])
            elif isinstance(step, Conv):
                y = self.convolved(step, values[step.input], masks)
                y = y if step.residual is None else y + values[step.residual]
                values[step.output] = y if step.activation is None else step.activation(y)
            else:
                values[step.output] = compute(step, values, {})
        features: Tensor = values[self.plan.output]
        return features.float()

    def convolved(self, step: Conv, x: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """A convolution of the batch, without residual and activation."""
        raise NotImplementedError


class Union(BatchRun):
    """Computes the channels that any image of the batch keeps; each image's own mask is applied to them."""

    def convolved(self, step: Conv, x: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """A convolution with the kept weights only."""
        weight, bias = self.weights[step.output]
        if step.in_site is not None:
            weight = weight[:, _of_any(masks[step.in_site])]
        if step.out_site is None:
            return F.conv2d(x, weight, bias, step.stride, step.padding)
        mask = masks[step.out_site]
        kept = _of_any(mask)
        y = F.conv2d(x, weight[kept], bias[kept], step.stride, step.padding)
        return y * mask[:, kept, None, None].to(self.dtype)


class Gathered(BatchRun):
    """Gathers each image's own kernels, padded to the image that keeps most, for one grouped convolution."""

    def convolved(self, step: Conv, x: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """A convolution with a group for each image."""
        weight, bias = self.weights[step.output]
        if step.in_site is None and step.out_site is None:
            return F.conv2d(x, weight, bias, step.stride, step.padding)
        n = len(x)
        weights, biases = weight.expand(n, *weight.shape), bias.expand(n, -1)
        if step.out_site is not None:
            first, there = _first_kept(masks[step.out_site])
            weights, biases = weight[first], bias[first] * there.to(self.dtype)
            weights = weights * there[..., None, None, None].to(self.dtype)
        if step.in_site is not None:
            first, there = _first_kept(masks[step.in_site])
            places = first[:, None, :, None, None].expand(-1, weights.shape[1], -1, *weights.shape[3:])
            weights = weights.gather(2, places) * there[:, None, :, None, None].to(self.dtype)
        outputs = weights.shape[1]
        grouped = F.conv2d(x.flatten(0, 1)[None], weights.flatten(0, 1), None, step.stride, step.padding, groups=n)
        return grouped.view(n, outputs, *grouped.shape[2:]) + biases[..., None, None]


def _of_any(mask: Tensor) -> Tensor:
    """The channels that are open for any image of a mask (N, C)."""
    return mask.any(dim=0).nonzero().flatten()


def _first_kept(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Of a mask (N, C) the open channels of each image first, (N, k), and which of these k are open."""
    most = int(mask.sum(dim=1).max())
    there, order = mask.sort(dim=1, descending=True, stable=True)
    return order[:, :most], there[:, :most]


def static_of(plan: Plan, model: ssl_dc.Model, images: Tensor) -> PlanNetwork:
    """The channels that are open most often: in every block as many as are open on average."""
    with torch.no_grad():
        masks = model.gated(images).masks
    shares = {}
    for site, mask in masks.items():
        share = mask.mean(dim=0)
        shares[site] = torch.zeros_like(share)
        shares[site][share.topk(max(1, round(float(share.sum())))).indices] = 1.0
    return PlanNetwork(make_static(plan, shares, 0.5)).eval()


def ways_of(model: ssl_dc.Model, images: Tensor, device: torch.device, dtype: torch.dtype) -> dict[str, Way]:
    """What the gated network is compared by, each from images in float32 to features."""
    backbone = model.encoder.backbone(Route.GATED)
    gated = fuse(capture(backbone, Route.GATED))
    static = static_of(gated, model, images[:32].cpu()).to(device, dtype)
    model.to(device)
    on_device = fuse(capture(model.encoder.backbone(Route.GATED), Route.GATED)) if device.type != "cpu" else gated

    @torch.no_grad()
    def masked(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            return model.gated(x).features

    dense = PlanNetwork(fuse(capture(backbone, Route.DENSE))).eval().to(device, dtype)
    return {
        "dense": _compiled(dense, dtype),
        "masked": masked,
        "union": Union(on_device, device, dtype),
        "gathered": Gathered(on_device, device, dtype),
        "static": _compiled(static, dtype),
    }


def _compiled(network: PlanNetwork, dtype: torch.dtype) -> Way:
    fast = torch.compile(network.to(memory_format=torch.channels_last), mode="reduce-overhead")

    @torch.no_grad()
    def run(x: Tensor) -> Tensor:
        features: Tensor = fast(x.to(dtype).contiguous(memory_format=torch.channels_last))
        return features.float()

    return run


def measure(size: int, share: float, batch: int, device: torch.device, seconds: float) -> list[dict[str, Any]]:
    """Time all ways at one open share; the rows of the table."""
    images = torch.randn(max(batch, 32), 3, size, size)
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        model = with_rates(network(size, images[:32]), [share] * 8, images[:32])
        cost = float(model.gated(images[:32]).ratio.mean())
        ways = ways_of(model, images, device, dtype)
        x = images[:batch].to(device)

        def timed(way: Way, x: Tensor = x) -> Callable[[int], Tensor]:
            return lambda _: way(x).cpu()  # the copy waits for the GPU

        times = in_turns({name: timed(way) for name, way in ways.items()}, seconds=seconds)
        rows += [
            {
                "px": size,
                "batch": batch,
                "dtype": str(dtype).removeprefix("torch."),
                "open_share": share,
                "cost_ratio": cost,
                "way": name,
                **vars(times.timing(name)),
                "over_dense": times.ratio("dense", name),
            }
            for name in ways
        ]
    return rows


def main() -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--px", type=int, action="append", choices=tuple(SIZES))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    rows: list[dict[str, Any]] = []
    print("| px | batch | dtype | MACs ratio | way | median ms | p10 | p90 | over dense |")
    print("| ---: | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for size in options.px or (224, 32):
        for share in SWEEP[size]:
            some = measure(size, share, options.batch, torch.device(options.device), options.seconds)
            for row in some:
                print(
                    f"| {row['px']} | {row['batch']} | {row['dtype']} | {row['cost_ratio']:.3f} | {row['way']} |"
                    f" {row['median']:.3f} | {row['p10']:.3f} | {row['p90']:.3f} | {row['over_dense']:.2f} |",
                    flush=True,
                )
            rows += some
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
