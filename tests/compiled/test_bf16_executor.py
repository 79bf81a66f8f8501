"""The bf16 executor computes what its plan says, on any processor; the plan is close to the network in float32."""

from __future__ import annotations

import pickle
import platform
import random
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ssl_dc.compiled import executor as executor_module
from ssl_dc.compiled.activations import Activation
from ssl_dc.compiled.bf16_plan import Bf16Plan, in_bf16
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import compiled
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import BF16, bf16_kernel, multiplies_bf16
from ssl_dc.compiled.kernel_interface import Kernel, dot_product
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.steps.layers import Conv
from ssl_dc.compiled.steps.pooling import Mean
from ssl_dc.errors import RunError, SlowerWarning
from ssl_dc.routes import Route
from ssl_dc.training_images import training_images
from tests.compiled.test_executor import OwnBackbone
from tests.compiled.test_int8_executor import digits_model
from tests.helpers.bf16_network import exact_in_bf16
from tests.helpers.compared_networks import CLOSE, difference_in_bf16
from tests.helpers.kernels_with_flags import library_with
from tests.helpers.random_networks import DrawnNetwork, drawn_resnet, random_encoder

pytestmark = [
    pytest.mark.skipif(
        sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
    ),
    pytest.mark.filterwarnings("ignore:this processor has no instructions for bf16:ssl_dc.errors.SlowerWarning"),
]


@pytest.fixture(autouse=True)
def _same_images_every_time() -> None:
    torch.manual_seed(0)


def is_as_stated(case: DrawnNetwork, kernel: Kernel) -> bool:
    """Run the images side by side, and one by itself with all threads; whether features are equal to the statement's."""
    plan, images = exact_in_bf16(case)
    runner = NativeRunner(plan, kernel, case.threads)
    differences = [difference_in_bf16(plan, batch, *runner(batch)) for batch in (images, images[:1])]
    assert not any(difference.wrong for difference in differences), case
    return all(difference.error < CLOSE for difference in differences)


@pytest.mark.parametrize("route", Route.BOTH)
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("stem", "width"), [("imagenet", 20), ("cifar", 8), ("strided", 36)])
def test_the_kernel_computes_what_the_plan_says(route: Route, gating: str, backbone: str, stem: str, width: int) -> None:
    settings = {"gating.name": gating, "backbone.name": backbone, "backbone.stem": stem, "backbone.width": width}
    case = DrawnNetwork(settings, seed=0, route=route, shift=0.0, in_torch=False, shape=(2, 3, 32, 32), threads=3)
    assert is_as_stated(case, bf16_kernel())


def assert_random_networks_are_as_stated(kernel: Kernel, count: int, seed: int) -> None:
    """In few of them sums that are not exact are rounded to other values."""
    draw = random.Random(seed)
    equal = sum(is_as_stated(drawn_resnet(draw)._replace(in_torch=False), kernel) for _ in range(count))
    assert equal >= 0.97 * count


@pytest.mark.long
def test_random_networks() -> None:
    assert_random_networks_are_as_stated(bf16_kernel(), 30, seed=0)


@pytest.mark.slow
def test_many_random_networks() -> None:
    assert_random_networks_are_as_stated(bf16_kernel(), 600, seed=1)


VARIANTS = {
    "avx512-bf16": ("avx512-bf16", "avx512_bf16", ("-march=x86-64-v4", "-mavx512bf16")),
    "avx512": ("float32", "avx512bw", ("-march=x86-64-v4",)),
    "avx2": ("float32", "avx2", ("-march=x86-64-v3",)),
    "sse2": ("float32", "sse2", ("-march=x86-64",)),
    "plain": ("float32", "", ("-DSSL_DC_PLAIN",)),
}
"""Kernels for other processors: how they multiply, the flag of /proc/cpuinfo that they need, and the compiler's flags."""


@cache
def variant(name: str, *more: str) -> Kernel:
    """The bf16 kernel for another processor."""
    dot, needed, flags = VARIANTS[name]
    cpuinfo = Path("/proc/cpuinfo")
    if needed and needed not in (cpuinfo.read_text().split() if cpuinfo.exists() else ()):
        pytest.skip(f"this processor does not run code for {name}")
    library = library_with(BF16, *flags, *more)
    assert dot_product(library) == dot
    return Kernel(library)


@pytest.mark.long
@pytest.mark.parametrize("name", VARIANTS)
def test_every_processor_computes_what_the_plan_says(name: str) -> None:
    assert_random_networks_are_as_stated(variant(name, "-O1"), 5, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_many_networks_on_every_processor(name: str) -> None:
    assert_random_networks_are_as_stated(variant(name), 200, seed=3)


def test_values_are_rounded_as_torch_rounds_them() -> None:
    """Images of one pixel, and a layer that passes it on: the kernel rounds on the way in, and after the bias."""
    numbers = torch.cat([torch.randn(3000), torch.randn(3000) * 1e-30, torch.tensor([3.3895e38, -3.3895e38, 0.0])])
    encoder = random_encoder(**{"gating.name": "none", "budget.target": None})
    plan = in_bf16(fuse(capture(encoder.backbone(Route.DENSE), Route.DENSE)))
    first = next(step for step in plan.steps if isinstance(step, Conv))
    mean = next(step for step in plan.steps if isinstance(step, Mean))
    weight, bias = torch.zeros(2, 3, 1, 1), torch.tensor([0.0, 0.3])
    weight[:, 0] = 1
    layer = replace(first, weight=weight, bias=bias, padding=(0, 0), activation=None)
    images = torch.zeros(len(numbers), 3, 1, 1)
    images[:, 0, 0, 0] = numbers
    only = Bf16Plan((layer, replace(mean, input=layer.output)), plan.output, plan.input)
    features, _ = NativeRunner(only, bf16_kernel(), 1)(images)
    rounded = numbers.bfloat16().float()
    assert torch.equal(features[:, 0], rounded)
    assert torch.equal(features[:, 1], (rounded + 0.3).bfloat16().float())


def test_close_to_float32_on_real_images() -> None:
    model = digits_model()
    images = training_images(model.config, model.transform, 256)
    for compile_route in (model.compile_dense, model.compile_gated):
        exact, close = compile_route()(images), compile_route(precision="bf16")(images)
        error = (close.features - exact.features).norm(dim=1) / exact.features.norm(dim=1)
        assert float(error.median()) < 0.02
    flips = [(close.masks[site] != mask).float().mean() for site, mask in exact.masks.items()]
    assert float(torch.stack(flips).mean()) < 0.01


def test_the_batch_and_the_threads_do_not_matter() -> None:
    backbone = random_encoder(**{"backbone.width": 20}).backbone(Route.GATED)
    images = torch.randn(5, 3, 33, 31)
    one = compiled(backbone, Route.GATED, threads=1, precision="bf16")(images)
    for threads in (2, 3, 16):
        executor = compiled(backbone, Route.GATED, threads=threads, precision="bf16")
        assert torch.equal(executor(images).features, one.features)
        assert torch.equal(executor(images[:1]).features, one.features[:1])


def test_an_executor_is_copied_whole() -> None:
    executor = compiled(random_encoder().backbone(Route.GATED), Route.GATED, precision="bf16")
    images = torch.randn(3, 3, 32, 32)
    expected = executor(images)
    for other in (pickle.loads(pickle.dumps(executor)), executor.with_threads(2)):
        assert other.precision == "bf16"
        assert torch.equal(other(images).features, expected.features)
    assert "bf16, backend native" in repr(executor)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_and_leaves_nothing_behind(value: float) -> None:
    """The same memory serves the next image, in which other channels are open."""
    executor = compiled(
        random_encoder(**{"backbone.width": 20}).backbone(Route.GATED), Route.GATED, threads=1, precision="bf16"
    )
    images = torch.randn(4, 3, 32, 32)
    expected = executor(images)
    spoilt = images.clone()
    spoilt[0] = value
    with pytest.warns(RuntimeWarning, match="of 4 images 1 holds NaN or infinity"):
        features = executor(spoilt).features
    assert features[0].isnan().all()
    assert torch.equal(features[1:], expected.features[1:])
    assert len(executor(images[:0]).features) == 0


# ---- what is said, and refused ----


def test_where_bf16_is_slower_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = random_encoder().backbone(Route.GATED)
    monkeypatch.setattr(executor_module, "multiplies_bf16", lambda: False)
    with pytest.warns(SlowerWarning, match="no instructions for bf16, so precision='float32' is faster here"):
        compiled(backbone, Route.GATED, precision="bf16")


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="it reads the flags of x86 on Linux")
def test_the_kernel_of_this_machine_has_the_instructions_of_its_processor() -> None:
    assert multiplies_bf16() == ("avx512_bf16" in Path("/proc/cpuinfo").read_text().split())


def test_calibration_images_are_for_int8() -> None:
    with pytest.raises(ValueError, match="calibration images are for int8; bf16 takes none"):
        digits_model().compile_gated(precision="bf16", calibration=torch.zeros(1, 3, 32, 32))


def test_torch_has_no_bf16_and_says_so() -> None:
    with pytest.raises(RunError, match="the backend torch does not compute in bf16"):
        digits_model().compile_gated(precision="bf16", backend="torch")


def test_a_network_that_bf16_cannot_compute_is_refused() -> None:
    with pytest.raises(RunError, match=r"bf16 cannot compute the step '.*' \(Call\).*; use precision='float32'"):
        compiled(OwnBackbone().eval(), Route.DENSE, precision="bf16")


def test_other_activations_than_relu_are_refused() -> None:
    plan = fuse(capture(random_encoder().backbone(Route.DENSE), Route.DENSE))
    layer = next(step for step in plan.steps if isinstance(step, Conv) and step.activation is not None)
    with pytest.raises(RunError, match=r"bf16 cannot compute the layer conv1, which has .* another activation than ReLU"):
        in_bf16(plan.exchanged({layer: (replace(layer, activation=Activation("silu")),)}))


def test_weights_that_are_not_finite_are_refused() -> None:
    encoder = random_encoder()
    with torch.no_grad():
        encoder.backbone(Route.GATED).conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(RunError, match="bf16 cannot compute the layer conv1, which has a weight that is not finite"):
        compiled(encoder.backbone(Route.GATED), Route.GATED, precision="bf16")
