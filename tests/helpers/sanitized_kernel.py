"""Runs random networks by a kernel that is built with a sanitizer: ``kernel.c`` or ``kernel_int8.c``.

``python -m tests.helpers.sanitized_kernel FILE CASES FLAG...``. The library of the sanitizer must have been loaded before
Python where it needs that.
"""

from __future__ import annotations

import random
import sys

import numpy as np
import torch

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import INT8, INT8_FLAGS, ROOM
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.quantise import Recipe, quantise
from ssl_dc.native import library as native_library
from ssl_dc.native.library_cache import load_library
from ssl_dc.routes import Route
from tests.compiled.test_executor import random_encoder
from tests.helpers import int8_network


def sanitized(file: str, flags: list[str]) -> Kernel:
    """The kernel, with more checks and fewer optimisations."""
    own = INT8_FLAGS if file == INT8 else ()
    every = (*native_library.FLAGS, *own, "-O1", "-g", "-fno-omit-frame-pointer", *flags)
    return Kernel(load_library(native_library._compile("cc", native_library.source_of(ROOM, file), every)))


def run_case(draw: random.Random, kernel: Kernel, file: str) -> None:
    """One random network on random images, against what it should give."""
    backbone, size = draw.choice(["resnet18", "resnet18", "resnet34", "resnet50"]), draw.randint(9, 45)
    settings = {
        "backbone.name": backbone,
        "backbone.width": 4 * draw.randint(1, 16 if backbone == "resnet18" else 4),
        "backbone.stem": draw.choice(["imagenet", "cifar", "strided"]),
        "gating.name": draw.choice(["dgnet", "convnet_aig"]),
    }
    encoder = random_encoder(draw.randint(0, 99), size, **settings)
    route = draw.choice([Route.DENSE, Route.GATED])
    images = torch.randn(draw.randint(1, 3), 3, size, size)
    plan = fuse(capture(encoder.backbone(route), route))
    if file == INT8:
        plan = quantise(plan, torch.randn(1, 3, size, size), recipe=Recipe(compensated=False, fine=draw.random() < 0.8))
    runner = NativeRunner(plan, kernel, draw.randint(1, 4))
    for batch in (images, images[:1]):
        features, _ = runner(batch)
        if file == INT8:
            assert all(
                np.array_equal(row.numpy(), int8_network.run(plan, image.numpy())[0])
                for row, image in zip(features, batch, strict=True)
            ), settings
        else:
            expected = encoder(batch, route).features
            assert float((features - expected).abs().max() / expected.abs().max()) < 1e-5, settings


def main() -> None:
    """Run the cases; a report of the sanitizer ends the process."""
    file, cases, *flags = sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    draw, kernel = random.Random(0), sanitized(file, flags)
    with torch.no_grad():
        for _ in range(int(cases)):
            run_case(draw, kernel, file)
    print(f"{cases} cases, no report")


if __name__ == "__main__":
    main()
