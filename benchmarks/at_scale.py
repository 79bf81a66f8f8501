"""Reckons time, cost and memory of the recipe on ImageNet-100 and ImageNet-1k, for 1, 8 and 64 GPUs.

    python benchmarks/at_scale.py [--price 2.5] [--cores 16]

What is measured is taken from docs/results/gpu.md (steps on an H100), from benchmarks on CPU cores, and from a forward pass
of the network here (bytes that are kept for the backward pass). All else is an assumption. Each stands below as a constant
with its reason, and is printed under the table. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch

from ssl_dc.assemble import build_network, build_objective
from ssl_dc.config import RunConfig, resolve, uniform_layer
from ssl_dc.objectives.base import EncodedViews
from ssl_dc.training.rehearsal import kept_for_backward
from ssl_dc.training_cost import training_macs

SETS = {"ImageNet-100": 126_689, "ImageNet-1k": 1_281_167}
"""Training images."""
EPOCHS = {"ImageNet-100": (500,), "ImageNet-1k": (100, 500)}
"""The paper has 500 on ImageNet-100, and nothing on ImageNet-1k."""
BATCHES = {1: (512,), 8: (512, 2048), 64: (512, 4096)}
"""Global batches for each number of GPUs: the paper's, and one that keeps the GPUs busy."""

MEASURED_IMAGES, MEASURED_BATCH = 4_238, 512
"""Images a second of the dual step on an H100: bf16, ResNet-18 of width 64, 32 px (docs/results/gpu.md)."""
STEP_SECONDS = 0.085
"""Least time of a step: what launching the work of a dual step took where the network was small (the same page)."""
EXCHANGE_GBYTES = {1: float("inf"), 8: 200.0, 64: 20.0}
"""Assumed: GB a second at which GPUs sum their gradients: NVLink within 8, a network of 400 Gbit/s a machine beyond."""
SUM_SECONDS = {1: 0.0, 8: 40e-6, 64: 100e-6}
"""Assumed: seconds of a small exchange, of which each synchronised batch norm needs two in each view."""
OVERLAP = 0.5
"""Assumed: share of the gradients' exchange that hides behind the backward pass."""
IMAGE_BYTES, IMAGE_MEGAPIXELS = 110_000, 0.2
"""Of an ImageNet picture, on average."""
DECODE_SECONDS, CROP_SECONDS = 0.012, 0.002
"""Of a CPU core: for a million pixels of JPEG (docs/data.md), and assumed for the two crops of a picture to 224 px."""


@dataclass(frozen=True)
class Shape:
    """What a process has to hold and to exchange.

    Attributes:
        macs: MACs of training on one image.
        parameters: Trained numbers, with heads.
        norms: Batch norms that the views of a step pass, all views together.
        kept: Bytes that an image keeps for the backward pass, all views, under bf16.
    """

    macs: int
    parameters: int
    norms: int
    kept: int


def config_of(size: int, stem: str) -> RunConfig:
    """The paper's recipe at an image size."""
    settings = {
        "data.name": "folder",
        "recipe": "paper",
        "data.image_size": size,
        "backbone.stem": stem,
        "budget.target": 0.3,
    }
    return resolve([uniform_layer(settings, "benchmark")]).config


def shape_of(config: RunConfig, images: int = 4) -> Shape:
    """The shape of a config's training, by a forward pass of a few images."""
    network = build_network(config)
    objective = build_objective(config, network.encoder.feature_dim)
    trained = [p for module in (network.encoder, objective) for p in module.parameters()]
    passed: list[None] = []
    for module in network.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: passed.append(None))
    views = [torch.randn(images, 3, config.data.image_size, config.data.image_size) for _ in config.routes]
    with kept_for_backward(trained) as kept, torch.autocast("cpu", torch.bfloat16):
        encoded = [network.encoder(view, route) for view, route in zip(views, config.routes, strict=True)]
        objective(EncodedViews(views, [one.features for one in encoded], config.routes))
    parameters = sum(p.numel() for p in trained)
    return Shape(training_macs(config), parameters, len(passed), sum(kept.values()) // images)


def step_seconds(shape: Shape, rate: float, gpus: int, batch: int) -> float:
    """How long a step takes."""
    computing = max(STEP_SECONDS, batch / gpus * shape.macs / rate)
    gradients = 2 * 4 * shape.parameters / (EXCHANGE_GBYTES[gpus] * 1e9)
    return computing + (1 - OVERLAP) * gradients + 2 * shape.norms * SUM_SECONDS[gpus]


def rows(options: argparse.Namespace, shape: Shape, rate: float) -> list[list[Any]]:
    """A row for each data set, length, number of GPUs and batch."""
    found = []
    for name, images in SETS.items():
        for epochs in EPOCHS[name]:
            for gpus, batches in BATCHES.items():
                for batch in batches:
                    seconds = step_seconds(shape, rate, gpus, batch)
                    hours = epochs * (images // batch) * seconds / 3600
                    speed = batch / seconds
                    cores = speed * (DECODE_SECONDS * IMAGE_MEGAPIXELS + CROP_SECONDS) / gpus
                    memory = 3 * 4 * shape.parameters + batch / gpus * shape.kept
                    many = " (too many)" if cores > options.cores else ""
                    times = [f"{1000 * seconds:.0f}", f"{speed:,.0f}", f"{hours:,.1f}", f"{hours * gpus:,.0f}"]
                    dollars = f"{hours * gpus * options.price:,.0f}"
                    found.append(
                        [name, epochs, gpus, batch, *times, dollars, f"{memory / 2**30:.1f}", f"{cores:.1f}{many}"]
                    )
    return found


def main() -> None:
    """Reckon and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--price", type=float, default=2.5, help="dollars for an hour of one GPU")
    parser.add_argument("--cores", type=int, default=16, help="CPU cores for each GPU")
    options = parser.parse_args()
    small, large = config_of(32, "cifar"), config_of(224, "imagenet")
    rate = MEASURED_IMAGES * training_macs(small)
    shape = shape_of(large)
    heads = [
        "data",
        "epochs",
        "GPUs",
        "batch",
        "ms a step",
        "images/s",
        "hours",
        "GPU hours",
        "$",
        "GiB a GPU",
        "cores a GPU",
    ]
    print("| " + " | ".join(heads) + " |")
    print("| --- |" + " ---: |" * (len(heads) - 1))
    for row in rows(options, shape, rate):
        print("| " + " | ".join(map(str, row)) + " |")
    print()
    print(
        f"- MACs of training on one image: {shape.macs:.3e} at 224 px, {training_macs(small):.3e} at 32 px, two views each."
    )
    print(f"- Measured: {MEASURED_IMAGES:,} images/s at 32 px, batch {MEASURED_BATCH}: {rate:.2e} MACs/s.")
    print(f"- A step takes {1000 * STEP_SECONDS:.0f} ms at least: measured, for launching its work.")
    print(f"- {shape.parameters:,} parameters; {shape.kept / 2**20:.0f} MiB kept for each image in bf16, both views.")
    print(f"- Storage: {', '.join(f'{name} {n * IMAGE_BYTES / 1e9:.0f} GB' for name, n in SETS.items())}.")
    print(f"- Assumed: {options.price} dollars a GPU hour; gradients summed at {EXCHANGE_GBYTES[8]:.0f} GB/s by 8 GPUs and")
    print(f"  {EXCHANGE_GBYTES[64]:.0f} GB/s by 64, {OVERLAP:.0%} of it hidden; {1e6 * SUM_SECONDS[8]:.0f} and")
    print(f"  {1e6 * SUM_SECONDS[64]:.0f} µs for each of the {2 * shape.norms} exchanges of batch norms.")
    print(f"- Measured: {1000 * DECODE_SECONDS:.0f} ms of a CPU core to decode a megapixel.")
    print(f"- Assumed: {IMAGE_MEGAPIXELS} megapixels a picture, and {1000 * CROP_SECONDS:.0f} ms to crop it twice.")


if __name__ == "__main__":
    main()
