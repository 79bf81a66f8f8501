"""Runs random networks by a kernel that is built with a sanitizer: ``kernel.c``, ``kernel_bf16.c`` or ``kernel_int8.c``.

``python -m tests.helpers.sanitized_kernel FILE CASES FLAG...``. The library of the sanitizer must have been loaded before
Python where it needs that.
"""

from __future__ import annotations

import random
import sys

import torch

from ssl_dc.compiled.bf16_plan import Bf16Plan
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.int8_plan import Int8Plan
from ssl_dc.compiled.kernel import BF16, INT8
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.quantise import Recipe, quantise
from ssl_dc.native.library import KERNEL
from tests.helpers.bf16_network import exact_in_bf16
from tests.helpers.compared_networks import Reference, difference_in_bf16, difference_in_float32, difference_in_int8
from tests.helpers.kernels_with_flags import library_with
from tests.helpers.random_networks import drawn_network, drawn_resnet


def run_case(draw: random.Random, kernel: Kernel, file: str, largest_weight: int) -> None:
    """One random network on random images, against what it should give; the images side by side, and one by itself."""
    case = drawn_network(draw) if file == KERNEL else drawn_resnet(draw)._replace(in_torch=False)
    images, encoder = case.images(), case.encoder()
    plan = fuse(capture(encoder.backbone(case.route), case.route))
    if file == INT8:
        plan = quantise(
            plan, images[:1], recipe=Recipe(compensated=False, fine=draw.random() < 0.8, largest_weight=largest_weight)
        )
    if file == BF16:
        plan, images = exact_in_bf16(case)
    runner = NativeRunner(plan, kernel, case.threads)
    answers = [(batch, *runner(batch)) for batch in (images, images[:1])]
    for batch, *answer in answers:
        if isinstance(plan, Int8Plan):
            difference = difference_in_int8(plan, batch, *answer)
        elif isinstance(plan, Bf16Plan):
            difference = difference_in_bf16(plan, batch, *answer)
        else:
            difference = difference_in_float32(plan, Reference(encoder, case.route, batch), *answer)
        assert not difference.wrong, (difference.wrong, case)


def main() -> None:
    """Run the cases; a report of the sanitizer ends the process."""
    file, cases, *flags = sys.argv[1:]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    draw, library = random.Random(0), library_with(file, "-O1", "-g", "-fno-omit-frame-pointer", *flags)
    largest_weight = library.ssl_dc_largest_weight() if file == INT8 else 0
    with torch.no_grad():
        for _ in range(int(cases)):
            run_case(draw, Kernel(library), file, largest_weight)
    print(f"{cases} cases, no report")


if __name__ == "__main__":
    main()
