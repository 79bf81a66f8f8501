"""Measures which share of the speed-up that the MACs promise the executor keeps, for networks of six families.

    python benchmarks/families_speed.py [--json FILE] [--seconds 20] [--network NAME ...]

It needs the plugin ssl-dc-timm. Weights are random, which does not change the time. Each channel site has a gate of DGNet
with random weights, and its time counts. All gates open the same share of their entries over the images; the share is set
so that the MACs are about 0.3 and 0.5 of the dense ones. Masks differ from image to image. Images are 224 px, for the ViT
32 px in patches of 4. Each call computes one image with one thread.

All ways take turns, and each call uses another image. Speed-ups are medians over calls of the ratio to the faster of the
two dense ways, with whose MACs the promise compares. What is kept is the speed-up as a share of the promise. Where the
layers without gates, or the least number of heads, cost more than is asked for, the MACs ratio shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc.bench.runtimes import DenseNetwork, Unavailable, runtime_or_reason
from ssl_dc.bench.timing import Times, in_turns
from ssl_dc.gating.base import Gate

NETWORKS: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "resnet50": (224, {}),
    "mobilenetv3_small_050": (224, {}),
    "efficientnet_b0": (224, {}),
    "convnext_atto": (224, {}),
    "regnetx_002": (224, {}),
    "vit_tiny_patch16_224": (32, {"img_size": 32, "patch_size": 4}),
}
"""For each network of timm's the side of the images, and its options."""
COSTS = (0.3, 0.5)
"""MACs of the gated networks as a share of the dense ones."""
LEAST_SHARE = 0.02
"""The smallest share of entries that is open, where the layers without gates cost more than is asked for."""
NUMBER = 16
"""How many images there are."""
ONNX, EXECUTOR = "onnxruntime", "executor"


def varied_images(size: int) -> Tensor:
    """Random images (n, 3, size, size) of coarse patterns and noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(NUMBER, 3, 6, 6, generator=generator)
    fine = 0.3 * torch.randn(NUMBER, 3, size, size, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic") + fine


def network(name: str, images: Tensor) -> ssl_dc.Model:
    """An untrained model whose norms and branches are far from 0; its batch norms have the statistics of the images."""
    size, options = NETWORKS[name]
    config = ssl_dc.RunConfig.model_validate(
        {
            "backbone": {"name": "timm", "model": name, **options},
            "data": {"name": "digits", "image_size": size},
            "gating": "dgnet",
            "budget": {"target": 0.9},
        }
    )
    torch.manual_seed(0)
    model = ssl_dc.Model.untrained(config)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("gamma") or (parameter.ndim == 1 and parameter_name.endswith("weight")):
            parameter.uniform_(0.5, 1.5)
    model.encoder.train()
    for route in ssl_dc.Route.BOTH:
        for _ in range(2):
            model.encoder(images, route)
    model.encoder.eval()
    return model


def open_share(model: ssl_dc.Model, cost: float) -> float:
    """The share of the entries of all masks that must be open for a cost."""
    low, high = LEAST_SHARE, 1.0
    for _ in range(12):
        share = (low + high) / 2
        masks = {
            site: (torch.arange(channels) < share * channels).float()[None]
            for site, channels in model.cost.channels.items()
        }
        if float(model.cost.gated_macs(masks)) / model.cost.dense_macs < cost:
            low = share
        else:
            high = share
    return low


def open_gates(model: ssl_dc.Model, share: float, images: Tensor) -> None:
    """Let the gates open a share of their entries, mean over the images, one gate after the other."""
    backbone = model.encoder.backbone(ssl_dc.Route.GATED)

    def set_threshold(gate: Gate, inputs: tuple[Tensor, ...]) -> None:
        gate.thresholds.fill_(torch.quantile(gate.logits(inputs[0]).flatten(), 1 - share))  # type: ignore[operator]

    gates = [point.gate for point in backbone.gate_points() if point.gate is not None]
    for gate in gates:
        nn.init.normal_(gate.excite.weight)  # type: ignore[union-attr, arg-type]  # or decisions hardly depend on the image
    hooks = [gate.register_forward_pre_hook(set_threshold) for gate in gates]
    backbone(images, ssl_dc.Route.GATED)
    for hook in hooks:
        hook.remove()


def measure(name: str, seconds: float) -> list[dict[str, Any]]:
    """Time every way of a network; a row for each cost."""
    size, _ = NETWORKS[name]
    images = varied_images(size)
    model = network(name, images)
    single = list(images.split(1))
    onnx = runtime_or_reason(ONNX, DenseNetwork(model, lambda: images), single[0], 1)
    if isinstance(onnx, Unavailable):
        raise SystemExit(f"onnxruntime does not run {name}: {onnx.reason}")
    dense = model.compile_dense(threads=1)
    ways: dict[str, Callable[[Tensor], Any]] = {ONNX: onnx, EXECUTOR: dense}
    ratios: dict[str, float] = {}
    for cost in COSTS:
        open_gates(model, open_share(model, cost), images)
        gated = model.compile_gated(threads=1)
        ratios[f"gated {cost}"] = float(gated(images).ratio.mean())
        ways[f"gated {cost}"] = gated
    times = in_turns(
        {way: lambda number, run=run: run(single[number % len(single)]) for way, run in ways.items()}, seconds=seconds
    )
    return [row(name, way, ratio, times) for way, ratio in ratios.items()]


def row(name: str, way: str, ratio: float, times: Times) -> dict[str, Any]:
    """A row of the table."""
    fastest = min((ONNX, EXECUTOR), key=lambda dense: times.timing(dense).median)
    return {
        "network": name,
        "px": NETWORKS[name][0],
        "way": way,
        "onnxruntime_ms": vars(times.timing(ONNX)),
        "executor_ms": vars(times.timing(EXECUTOR)),
        "gated_ms": vars(times.timing(way)),
        "fastest_dense": fastest,
        "speed_up": times.ratio(fastest, way),
        "cost_ratio": ratio,
        "promise": 1 / ratio,
        "kept_share_of_promise": times.ratio(fastest, way) * ratio,
        "kept_beside_onnxruntime": times.ratio(ONNX, way) * ratio,
        "calls": len(times.milliseconds[way]),
    }


HEADINGS = (
    *("network", "px", "dense: onnxruntime, ms", "dense: executor, ms", "gated, ms"),
    *("over fastest dense", "MACs ratio", "promise", "kept", "kept beside onnxruntime"),
)


def print_row(each: Mapping[str, Any]) -> None:
    """Print a row of the table in Markdown."""
    onnx, dense, gated = (each[f"{way}_ms"]["median"] for way in ("onnxruntime", "executor", "gated"))
    print(
        f"| {each['network']} | {each['px']} | {onnx:.2f} | {dense:.2f} | {gated:.2f} | {each['speed_up']:.2f} |"
        f" {each['cost_ratio']:.3f} | {each['promise']:.2f} | **{100 * each['kept_share_of_promise']:.0f} %** |"
        f" {100 * each['kept_beside_onnxruntime']:.0f} % |",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=tuple(NETWORKS), help="By default all six.")
    parser.add_argument("--seconds", type=float, default=20.0, help="How long each network is timed.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    print("| " + " | ".join(HEADINGS) + " |")
    print("| --- |" + " ---: |" * (len(HEADINGS) - 1))
    rows: list[dict[str, Any]] = []
    for name in options.network or NETWORKS:
        for each in measure(name, options.seconds):
            print_row(each)
            rows.append(each)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
