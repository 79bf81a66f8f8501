"""The layers of the float32 kernel by themselves: activations, norms, and what threads and batches must not change."""

from __future__ import annotations

import random
import shutil
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_dc.compiled.activations import ACTIVATIONS, Activation
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.kernel import kernel
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.steps.base import Step
from ssl_dc.compiled.steps.call import Call
from ssl_dc.compiled.steps.elementwise import Pointwise
from ssl_dc.compiled.steps.normalisation import LayerNorm
from tests.helpers.compared_networks import Reference, difference_in_float32
from tests.helpers.random_networks import drawn_blocks, grouped_network

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
)


def computed(step: Step, images: Tensor) -> Tensor:
    """What the kernel gives for one step that reads the images, (N, 3, H, W)."""
    whole = Call(output="features", function=lambda x: x.flatten(1), arguments=(step.output,))
    runner = NativeRunner(Plan((step, whole), "features"), kernel(), 1)
    features, _ = runner(images)
    assert list(runner._program((images.shape[2], images.shape[3])).host_steps) == [1]
    return features.view(images.shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_exact_to_a_millionth(name: str) -> None:
    near, far = torch.linspace(-12, 12, 3 * 41 * 43), torch.linspace(-200, 200, 3 * 41 * 43)
    images = torch.stack([near, far]).view(2, 3, 41, 43)
    exact = ACTIVATIONS[name](images.double())
    made = computed(Pointwise(output="y", input="images", function=Activation(name)), images)
    assert float(((made - exact).abs() / images.abs().clamp(min=1)).max()) < 1e-6


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_of_nan_is_nan(name: str) -> None:
    images = torch.zeros(1, 3, 5, 7)
    images[0, 1, 2, 3] = torch.nan
    made = computed(Pointwise(output="y", input="images", function=Activation(name)), images)
    assert torch.equal(made.isnan(), images.isnan())


def test_a_layer_norm_of_numbers_far_from_0_is_as_exact_as_they_are() -> None:
    images = 100 + torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    weight, bias, eps = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([-1.0, 0.0, 3.0]), 1e-5
    norm = LayerNorm(output="y", input="images", weight=weight, bias=bias, eps=eps, axis=1)
    last = images.double().movedim(1, -1)
    exact = F.layer_norm(last, (3,), weight.double(), bias.double(), eps).movedim(-1, 1)
    half_a_place = 100 * 2**-24
    deviations = (last.var(dim=-1, correction=0) + eps).sqrt()[:, None]
    bound = 4 * (half_a_place / deviations) * weight[:, None, None]
    assert bool(((computed(norm, images) - exact).abs() < bound + 1e-6).all())


@pytest.mark.parametrize("of_group", [2, 3, 4, 8, 16, 20])
@torch.no_grad()
def test_groups_of_all_sizes_that_are_shut(of_group: int) -> None:
    case = grouped_network(of_group)
    images, encoder = case.images(), case.encoder()
    runner = NativeRunner(fuse(capture(encoder.backbone(case.route), case.route)), kernel(), case.threads)
    features, opened = runner(images)
    difference = difference_in_float32(runner.whole_plan(), Reference(encoder, case.route, images), features, opened)
    assert not difference.wrong
    assert 0.1 < float(opened.float().mean()) < 0.9
    in_kernel = of_group <= kernel().block  # 16 channels with AVX2, 32 with AVX-512; torch computes wider groups
    assert (runner._program((11, 13)).host_steps == {}) == in_kernel


@pytest.mark.parametrize("number", range(6))
@torch.no_grad()
def test_neither_threads_nor_the_batch_change_a_bit(number: int) -> None:
    case = drawn_blocks(random.Random(number))
    plan = fuse(capture(case.encoder().backbone(case.route), case.route))
    images = case.images()
    expected = NativeRunner(plan, kernel(), 1)(images)
    for threads in (2, 5):
        runner = NativeRunner(plan, kernel(), threads)
        apart = [runner(image) for image in images.split(1)]
        for values, together, single in zip(expected, runner(images), zip(*apart, strict=True), strict=True):
            assert torch.equal(together, values)
            assert torch.equal(torch.cat(single), values)
