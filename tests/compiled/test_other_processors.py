"""The kernels give the same on processors that this machine is not: other x86 ones, and AArch64 under an emulator."""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import BF16, INT8
from ssl_dc.compiled.kernel_interface import Kernel
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.quantise import quantise
from ssl_dc.native.library import KERNEL
from ssl_dc.routes import Route
from tests.helpers.bf16_network import exact_in_bf16
from tests.helpers.compared_networks import (
    Difference,
    Reference,
    difference_in_bf16,
    difference_in_float32,
    difference_in_int8,
)
from tests.helpers.emulated_kernel import EmulatedKernel, Processor, built, missing
from tests.helpers.kernels_with_flags import library_with
from tests.helpers.random_networks import DrawnNetwork, drawn_network, drawn_resnet, grouped_network

CASES = int(os.environ.get("SSL_DC_EMULATED_CASES", "60"))
"""Networks of the slow tests, for each processor and precision."""

# ---- x86 in float32; for bf16 and int8 see test_bf16_executor.py and test_int8_executor.py ----

X86 = {"avx512": ("x86-64-v4", "avx512bw", 16), "avx2": ("x86-64-v3", "avx2", 8), "sse2": ("x86-64", "sse2", 4)}
"""For each kind of processor what the compiler is told, what /proc/cpuinfo must list, and the floats of a vector.

That for sse2 is also what any other processor gets: vector types, of which the compiler makes what it can.
"""


def x86_kernel(name: str, *flags: str) -> Kernel:
    march, needed, vector = X86[name]
    if platform.machine() != "x86_64" or sys.platform != "linux" or not shutil.which("cc"):
        pytest.skip("this needs an x86-64 processor, Linux and a C compiler")
    if needed not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip(f"this processor does not run code for {name}")
    kernel = Kernel(library_with(KERNEL, f"-march={march}", *flags))
    assert kernel.vector == vector
    return kernel


def compare_in_float32(case: DrawnNetwork, kernel: Kernel) -> Difference:
    images, encoder = case.images(), case.encoder()
    plan = fuse(capture(encoder.backbone(case.route), case.route))
    executed = NativeRunner(plan, kernel, case.threads)(images)
    return difference_in_float32(plan, Reference(encoder, case.route, images), *executed)


@torch.no_grad()
def assert_networks_are_the_same(kernel: Kernel, count: int) -> None:
    draw = random.Random(3)
    for case in (drawn_network(draw) for _ in range(count)):
        assert not compare_in_float32(case, kernel).wrong, case


@pytest.mark.long
@pytest.mark.parametrize("name", ["avx2", "sse2"])
def test_x86_processors_with_narrower_vectors(name: str) -> None:
    narrow = x86_kernel(name, "-O1")
    assert_networks_are_the_same(narrow, 6)
    for of_group in (2, 4, 8):
        assert not compare_in_float32(grouped_network(of_group), narrow).wrong, of_group


@pytest.mark.slow
@pytest.mark.parametrize("name", X86)
def test_many_networks_on_every_x86_processor(name: str) -> None:
    assert_networks_are_the_same(x86_kernel(name), CASES)


# ---- AArch64 ----

AARCH64 = {
    "no dot product": Processor("armv8-a", "cortex-a53", "plain", "float32"),
    "dot product": Processor("armv8.2-a+dotprod", "neoverse-n1", "neon-dotprod", "float32"),
    "i8mm": Processor("armv8.6-a", "max", "neon-i8mm", "neon-bf16"),
    "sve": Processor("armv8.6-a+sve", "max", "neon-i8mm", "neon-bf16"),
}
needs_emulator = pytest.mark.skipif(bool(missing()), reason=missing())


def compare_emulated(case: DrawnNetwork, kernel: EmulatedKernel, file: str) -> list[str]:
    """What differs, of the images side by side and of each by itself."""
    images, encoder = case.images(), case.encoder()
    plan = fuse(capture(encoder.backbone(case.route), case.route))
    if file == INT8:
        exact = quantise(plan, images[:1])
        answers = kernel.run(exact, images, case.threads)
        return [text for answer in answers for text in difference_in_int8(exact, images, *answer).wrong]
    if file == BF16:
        plan, images = exact_in_bf16(case)
        answers = kernel.run(plan, images, case.threads)
        return [text for answer in answers for text in difference_in_bf16(plan, images, *answer).wrong]
    answers = kernel.run(plan, images, case.threads)
    reference = Reference(encoder, case.route, images)
    return [text for answer in answers for text in difference_in_float32(plan, reference, *answer).wrong]


@pytest.mark.long
@needs_emulator
@pytest.mark.parametrize(("file", "name"), [(KERNEL, "no dot product"), (INT8, "dot product"), (BF16, "i8mm")])
@torch.no_grad()
def test_aarch64(file: str, name: str, tmp_path: Path) -> None:
    kernel = built(file, AARCH64[name], tmp_path, "-O1")
    settings: dict[str, object] = {"backbone.name": "resnet50", "backbone.width": 8, "gating.name": "dgnet"}
    case = DrawnNetwork(settings, seed=0, route=Route.GATED, shift=0.0, in_torch=False, shape=(2, 3, 12, 15), threads=2)
    assert compare_emulated(case, kernel, file) == []
    assert kernel.runs_on("cortex-a53") == (file == KERNEL)
    if file != KERNEL:
        with pytest.raises(AssertionError, match=f"status {-signal.SIGILL}"):
            compare_emulated(case, replace(kernel, cpu="cortex-a53"), file)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_emulator
@pytest.mark.parametrize("file", [KERNEL, BF16, INT8])
@pytest.mark.parametrize("name", AARCH64)
@torch.no_grad()
def test_many_networks_on_every_aarch64_processor(name: str, file: str, tmp_path: Path) -> None:
    kernel = built(file, AARCH64[name], tmp_path)
    draw = random.Random(4)
    for _ in range(CASES):  # Python cannot do a step while the emulator runs
        case = drawn_network(draw, whole_in_kernel=True) if file == KERNEL else drawn_resnet(draw)._replace(in_torch=False)
        assert compare_emulated(case, kernel, file) == [], case
