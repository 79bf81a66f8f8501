"""The int8 executor computes exactly what its plan says, on any processor; the plan is close to the network in float32."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

import ssl_dc
from ssl_dc.compiled import kernel as kernel_module
from ssl_dc.compiled import quantise as quantise_module
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor, compiled
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.int8_plan import Code, Int8Conv, Int8Plan, decoded, encoded, numbers
from ssl_dc.compiled.kernel import ANY_WEIGHT, INT8, int8_kernel, largest_weight
from ssl_dc.compiled.kernel_interface import Kernel, dot_product
from ssl_dc.compiled.native_backend import NativeRunner
from ssl_dc.compiled.observe import Seen
from ssl_dc.compiled.quantise import USUAL, Recipe, quantise
from ssl_dc.compiled.rounding import compensated
from ssl_dc.compiled.steps.base import Step
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.errors import RunError
from ssl_dc.gating.base import Gate, set_budgets
from ssl_dc.native import library as native_library
from ssl_dc.routes import Route
from ssl_dc.training_images import training_images
from tests.compiled.test_executor import OwnBackbone, Skipping
from tests.helpers import int8_network
from tests.helpers.kernels_with_flags import library_with
from tests.helpers.random_networks import random_encoder

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("cc"), reason="this machine has no C compiler, hence no kernel"
)


@pytest.fixture(autouse=True)
def _same_images_every_time() -> None:
    torch.manual_seed(0)


NEAREST = Recipe(compensated=False)
"""Where it does not matter how weights were rounded: this takes less time."""


def int8_plan(encoder: ssl_dc.Encoder, route: Route, size: int = 32, images: int = 4, recipe: Recipe = NEAREST) -> Int8Plan:
    return quantise(fuse(capture(encoder.backbone(route), route)), torch.randn(images, 3, size, size), recipe=recipe)


def assert_equal_to_the_statement(plan: Int8Plan, features: Tensor, opened: Tensor, images: Tensor) -> None:
    """Bit by bit."""
    for image, row, entries in zip(images, features, opened, strict=True):
        expected, masks = int8_network.run(plan, image.numpy())
        assert np.array_equal(row.numpy(), expected)
        kept = np.concatenate([masks[site.name] for site in plan.sites]) if plan.sites else np.zeros(0, bool)
        assert np.array_equal(entries.numpy().astype(bool), kept)


def executor_of(plan: Int8Plan, threads: int = 1) -> Executor:
    return Executor(plan, random_encoder().cost_model, threads=threads)


@pytest.mark.parametrize("route", Route.BOTH)
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar", "strided"])
def test_the_kernel_computes_what_the_plan_says(route: Route, gating: str, backbone: str, stem: str) -> None:
    encoder = random_encoder(**{"gating.name": gating, "backbone.name": backbone, "backbone.stem": stem})
    plan = int8_plan(encoder, route)
    images = torch.randn(3, 3, 32, 32)
    for threads, batch in ((1, images), (3, images[:1])):
        assert_equal_to_the_statement(plan, *executor_of(plan, threads)._runner(batch), batch)


@pytest.mark.parametrize("left_out", ["nothing", "by_channel", "fine"])
@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
def test_the_kernel_computes_every_recipe(left_out: str, gating: str) -> None:
    recipe = NEAREST if left_out == "nothing" else replace(NEAREST, **{left_out: False})
    plan = int8_plan(random_encoder(**{"gating.name": gating}), Route.GATED, recipe=recipe)
    assert any(code.fine for code in plan.codes.values()) == recipe.fine
    images = torch.randn(3, 3, 32, 32)
    assert_equal_to_the_statement(plan, *executor_of(plan, 2)._runner(images), images)


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("threshold", [-1e9, 1e9], ids=["all open", "all shut"])
def test_all_open_and_all_shut(gating: str, backbone: str, threshold: float) -> None:
    encoder = random_encoder(**{"gating.name": gating, "backbone.name": backbone})
    for module in encoder.modules():
        if isinstance(module, Gate):
            module.thresholds.fill_(threshold)
    plan = int8_plan(encoder, Route.GATED)
    images = torch.randn(2, 3, 32, 32)
    features, opened = executor_of(plan)._runner(images)
    assert_equal_to_the_statement(plan, features, opened, images)
    assert set(opened.flatten().tolist()) == {int(threshold < 0)}


def test_images_beyond_all_ranges_give_the_largest_and_the_smallest_bytes() -> None:
    plan = int8_plan(random_encoder(), Route.GATED)
    images = 1e6 * torch.randn(2, 3, 32, 32)
    images[1] = 3e38
    assert_equal_to_the_statement(plan, *executor_of(plan)._runner(images), images)


VARIANTS = {
    "avx512": ("-march=x86-64-v4", ANY_WEIGHT),
    "avx512-pairs": ("-march=x86-64-v4",),
    "avx-vnni": ("-march=x86-64-v3", "-mavxvnni"),
    "avx2": ("-march=x86-64-v3", ANY_WEIGHT),
    "avx2-pairs": ("-march=x86-64-v3",),
    "sse2": ("-march=x86-64",),
    "plain": ("-DSSL_DC_PLAIN",),
}
"""Flags that give the kernel of another processor, by the dot product that it has."""
NEEDED = {
    "avx512": "avx512bw",
    "avx512-pairs": "avx512bw",
    "avx-vnni": "avx_vnni",
    "avx2": "avx2",
    "avx2-pairs": "avx2",
    "sse2": "sse2",
    "plain": "",
}
"""The flag of /proc/cpuinfo that such a kernel needs to run here."""


@cache
def variant(name: str, *more: str) -> Kernel:
    """The int8 kernel for another processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if NEEDED[name] and NEEDED[name] not in (cpuinfo.read_text().split() if cpuinfo.exists() else ()):
        pytest.skip(f"this processor does not run code for {name}")
    library = library_with(INT8, *VARIANTS[name], *more)
    assert dot_product(library) == name
    return Kernel(library)


def assert_same_by(name: str, kernel: Kernel, cases: Sequence[tuple[dict[str, object], Route]]) -> None:
    recipe = replace(NEAREST, largest_weight=64) if name.endswith("pairs") else NEAREST
    for settings, route in cases:
        plan = int8_plan(random_encoder(**settings), route, recipe=recipe)
        assert plan.largest_weight == recipe.largest_weight
        images = torch.randn(2, 3, 32, 32)
        assert_equal_to_the_statement(plan, *NativeRunner(plan, kernel, 2)(images), images)


@pytest.mark.long
@pytest.mark.parametrize("name", ["avx2", "avx2-pairs", "plain"])
def test_a_processor_without_int8_dot_products_gives_the_same(name: str) -> None:
    cases = [({"backbone.width": 20}, Route.GATED), ({"backbone.name": "resnet50"}, Route.GATED)]
    assert_same_by(name, variant(name, "-O1"), cases)


def test_products_of_pairs_are_exact_for_the_largest_codes_and_weights() -> None:
    """2 * 255 * 64 fits in 16 bits: a code of 255 at every input, and weights of 64 or -64 at each."""
    kernel = variant("avx2-pairs", "-O1")
    plan = int8_plan(random_encoder(), Route.DENSE, recipe=replace(NEAREST, largest_weight=64))
    extreme: dict[Step, tuple[Step]] = {
        step: (replace(step, weight=torch.where(step.weight < 0, -64, 64).to(torch.int8)),)
        for step in plan.steps
        if isinstance(step, Int8Conv)
    }
    changed = plan.exchanged(extreme)
    assert isinstance(changed, Int8Plan)
    images = torch.full((2, 3, 32, 32), 1e6)
    images[1] = torch.randn(3, 32, 32)
    assert_equal_to_the_statement(changed, *NativeRunner(changed, kernel, 1)(images), images)


def test_a_plan_with_larger_weights_gets_a_kernel_that_is_exact_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an executor moves to a processor without int8 dot products."""
    asked = []

    class Library:
        def __init__(self, flags: tuple[str, ...]) -> None:
            asked.append(flags)

        def ssl_dc_largest_weight(self) -> int:
            return 64

    monkeypatch.setattr(kernel_module, "kernel_library", lambda _room, _file, *flags: Library(flags))
    monkeypatch.setattr(kernel_module, "Kernel", lambda library: library)
    int8_kernel(64)
    int8_kernel(65)
    assert [ANY_WEIGHT in flags for flags in asked] == [False, False, True]
    assert largest_weight() == 64


def test_weights_are_as_large_as_the_kernel_of_this_machine_multiplies_exactly() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, precision="int8", calibration=torch.randn(2, 3, 32, 32))
    plan = executor._runner.whole_plan()
    assert isinstance(plan, Int8Plan)
    assert plan.largest_weight == largest_weight()


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_processor_gives_the_same(name: str) -> None:
    cases = [
        ({"backbone.width": width, "backbone.name": backbone, "backbone.stem": stem, "gating.name": gating}, route)
        for width in (4, 12, 36)
        for backbone in ("resnet18", "resnet50")
        for stem in ("imagenet", "cifar", "strided")
        for gating in ("dgnet", "convnet_aig")
        for route in Route.BOTH
    ]
    assert_same_by(name, variant(name), cases)


# ---- from float32 to int8 ----


def a_channel(*numbers: float) -> Tensor:
    """Numbers (1, 1, 1, W) of one channel."""
    return torch.tensor(numbers, dtype=torch.float32)[None, None, None]


def test_a_code_stands_for_numbers_from_low_to_high() -> None:
    code = quantise_module._spanning(-1.0, 4.1, torch.ones(1))
    assert (code.step.tolist(), code.zero) == (pytest.approx([0.02]), 50)
    assert decoded(a_channel(0, 50, 255), code).flatten().tolist() == pytest.approx([-1.0, 0.0, 4.1])
    assert encoded(a_channel(-9, 0, 0.011, 9), code).flatten().tolist() == [0, 50, 51, 255]


def test_each_channel_has_a_step_of_its_own() -> None:
    seen = Seen((3, 30, 30))
    values = torch.tensor([1.0, 0.5, 0.01])[None, :, None, None] * torch.rand(1, 3, 30, 30)
    seen.add(values, torch.arange(3))
    code = quantise_module._code(seen, fine=True, by_channel=True)
    ranges = 255 * code.step / quantise_module.HEADROOM
    highest = values.amax(dim=(0, 2, 3)).double()
    assert ranges[:2].tolist() == pytest.approx(highest[:2].tolist())
    assert float(ranges[2]) == pytest.approx(quantise_module.SMALLEST_SHARE * float(highest[0]))
    one = quantise_module._code(seen, fine=True, by_channel=False)
    assert (255 * one.step / quantise_module.HEADROOM).tolist() == pytest.approx(3 * [float(highest.max())])


def test_a_fine_byte_keeps_what_rounding_lost() -> None:
    steps, values = torch.ones(1, dtype=torch.float64), 255 * torch.rand(1, 1, 8, 8)
    coarse, fine = Code(steps, 0), Code(steps, 0, fine=True)
    assert 0.3 < float((decoded(encoded(values, coarse), coarse) - values).abs().max()) <= 0.5
    assert float(((numbers(values, fine) - fine.origin) / 256 - values).abs().max()) <= 0.5 / 256
    assert float((decoded(encoded(values, fine), fine) - values).abs().max()) <= 0.5 + 0.5 / 256
    assert numbers(torch.zeros(1, 1, 1), fine) == fine.origin


def test_outliers_are_clipped_where_only_convolutions_read_them() -> None:
    values = torch.randn(1, 1, 1000, 1000).abs()
    values[0, 0, 0, 0] = 6.0

    def code(value: Tensor, fine: bool = False) -> Code:
        seen = Seen((1, 1000, 1000))
        seen.add(value, torch.arange(1))
        seen.samples, seen.channels = [value.flatten()], [torch.zeros(value.numel(), dtype=torch.long)]
        return quantise_module._code(seen, fine, by_channel=True)

    def error(code: Code) -> float:
        return float((decoded(encoded(values, code), code) - values).square().mean())

    whole = Code(torch.tensor([6 / 255], dtype=torch.float64), 0)
    assert float(code(values).step) < 6 / 255
    assert error(code(values)) < error(whole)
    assert float(code(values, fine=True).step) == pytest.approx(quantise_module.HEADROOM * 6 / 255)
    assert float(code(values.clamp(max=1)).step) == pytest.approx(1 / 255, rel=0.1)


def steps_of_weights(step: Int8Conv, plan: Int8Plan) -> Tensor:
    """What one unit of each weight is worth, (out, in, 1, 1) float64."""
    given, made = plan.codes[step.input], plan.codes[step.output]
    return (step.scale.double() * made.step)[:, None, None, None] / given.step[:, None, None]


@pytest.mark.parametrize("recipe", [USUAL, Recipe(fine=False, by_channel=False)], ids=["usual", "plain activations"])
def test_a_convolution_in_int8_is_the_one_in_float32_up_to_its_steps(recipe: Recipe) -> None:
    """Against float64, with bytes of the input that are exact."""
    encoder = random_encoder()
    floats = fuse(capture(encoder.backbone(Route.DENSE), Route.DENSE))
    plan = quantise(floats, torch.randn(4, 3, 32, 32), recipe=replace(recipe, compensated=False))
    for step, original in zip(plan.steps, floats.steps, strict=True):
        if not isinstance(step, Int8Conv):
            continue
        given, made = plan.codes[step.input], plan.codes[step.output]
        channels = step.weight.shape[1]
        x = torch.randint(0, 256, (channels, 12, 12), dtype=torch.uint8)
        values: dict[str, int8_network.Held] = {step.input: x.numpy()}
        expected = torch.nn.functional.conv2d(
            decoded(x.double(), given)[None], original.weight.double(), original.bias.double(), step.stride, step.padding
        )[0]
        if step.residual is not None:
            code = plan.codes[step.residual]
            r = torch.randint(128, 65409, expected.shape) if code.fine else torch.randint(0, 256, expected.shape)
            values[step.residual] = r.numpy().astype(np.uint16 if code.fine else np.uint8)
            expected = expected + (r.double() - code.origin) * code.unit[:, None, None]
        out = int8_network.convolved(step, values, {}, plan.codes).astype(np.float64)
        got = (torch.from_numpy(out) - made.origin) * made.unit[:, None, None]
        low, high = decoded(torch.tensor([step.low, 255.0]).double().expand(len(made.step), 1, 2), made).unbind(2)
        error = original.weight.double() - step.weight.double() * steps_of_weights(step, plan)
        assert (error.abs() <= 0.5001 * steps_of_weights(step, plan)).all()
        largest = decoded(torch.tensor([0.0, 255.0]).expand(channels, 1, 2), given).abs().amax(dim=(1, 2))
        lost = (error.abs().sum(dim=(2, 3)) * largest).sum(dim=1)  # by the weights; their correction is no larger
        bound = made.step / (128 if made.fine else 1) + 2 * lost
        clamped = torch.minimum(torch.maximum(expected, low[:, :, None]), high[:, :, None])
        assert ((got - clamped).abs() <= bound[:, None, None]).all()


@hypothesis_settings(max_examples=30, deadline=None)
@given(columns=st.integers(1, 140), rank=st.integers(1, 20), seed=st.integers(0, 9))
def test_columns_that_follow_make_up_for_the_error(columns: int, rank: int, seed: int) -> None:
    """Against the statement: before a column is rounded, all that are left are where the squared error is smallest."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rank, columns, generator=generator, dtype=torch.float64)
    moments, numbers = vectors.T @ vectors, 3 * torch.randn(2, columns, generator=generator, dtype=torch.float64)
    whole = compensated(numbers, moments, 127)
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    order = moments.diagonal().argsort(descending=True)
    for place in range(columns):
        done, left = order[:place], order[place:]
        moved = torch.linalg.solve(damped[left][:, left], damped[left][:, done] @ (numbers - whole)[:, done].T)
        best = numbers[:, left[0]] + moved[0]
        assert ((whole[:, left[0]] - best).abs() <= 0.5 + 1e-6).all()


def test_columns_that_go_together_are_rounded_together() -> None:
    numbers = torch.full((1, 5), 0.4, dtype=torch.float64)
    together, apart = torch.ones(5, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    assert float(compensated(numbers, together, 127).sum()) == 2
    assert float(compensated(numbers, apart, 127).sum()) == 0
    assert torch.equal(compensated(numbers, 0 * apart, 127), numbers.round())
    assert compensated(200 * torch.ones(1, 5, dtype=torch.float64), together, 127).max() == 127


@cache
def error_of(recipe: Recipe) -> float:
    """Median relative error of the features of digits, in the dense route of a network with random weights."""
    model = digits_model()
    images = training_images(model.config, model.transform, 96)
    floats = fuse(capture(model.encoder.backbone(Route.DENSE), Route.DENSE))
    executor = executor_of(quantise(floats, images[:64], recipe=recipe))
    exact = model.dense(images)
    return float(((executor(images).features - exact).norm(dim=1) / exact.norm(dim=1)).median())


@pytest.mark.long
@pytest.mark.parametrize("part", ["by_channel", "fine", "compensated"])
def test_each_part_of_the_recipe_makes_the_error_smaller(part: str) -> None:
    assert error_of(USUAL) < 0.95 * error_of(replace(USUAL, **{part: False}))


def test_the_mean_error_of_the_weights_is_corrected() -> None:
    """The mean output of the stem on the calibration images, given their bytes, is that of the weights in float32."""
    encoder = random_encoder(**{"backbone.width": 16})
    floats = fuse(capture(encoder.backbone(Route.DENSE), Route.DENSE))
    images = torch.randn(8, 3, 32, 32)
    plan = quantise(floats, images, recipe=NEAREST)
    (stem, *_), (original, *_) = plan.steps, floats.steps
    assert isinstance(stem, Int8Conv)
    given, made = plan.codes[plan.input], plan.codes[stem.output]
    x = decoded(encoded(images.double(), given), given)
    zero = given.zero * stem.weight.double().sum(dim=(1, 2, 3)) * stem.scale.double()
    bias = (stem.bias.double() + zero - made.zero) * made.step
    weight = stem.weight.double() * steps_of_weights(stem, plan)
    convolved = [
        torch.nn.functional.conv2d(x, *layer, stem.stride, stem.padding).mean(dim=(0, 2, 3))
        for layer in ((weight, bias), (original.weight.double(), original.bias.double()), (weight, original.bias.double()))
    ]
    torch.testing.assert_close(convolved[0], convolved[1], rtol=1e-4, atol=1e-5)
    error = (convolved[2] - convolved[1]).abs().max()
    assert float((convolved[0] - convolved[1]).abs().max()) < float(error) / 10


def test_other_budgets_and_copies_need_no_new_calibration() -> None:
    encoder = random_encoder()
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, precision="int8", calibration=torch.randn(4, 3, 32, 32))
    images = torch.randn(3, 3, 32, 32)
    for other in (copy.deepcopy(executor), pickle.loads(pickle.dumps(executor)), executor.with_threads(2)):
        assert other.precision == "int8"
        assert torch.equal(other(images).features, executor(images).features)
    assert executor.with_threads(2).threads == 2
    assert "int8, backend native" in repr(executor)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.filterwarnings("ignore:this processor has no instructions for bf16:ssl_dc.errors.SlowerWarning")
def test_other_budgets_turn_the_gates(precision: str) -> None:
    encoder = random_encoder()
    set_budgets(encoder, [0.2, 0.9], 0.9)
    for module in encoder.modules():
        if isinstance(module, Gate):
            module.thresholds[0] += 5
    calibration = torch.randn(4, 3, 32, 32) if precision == "int8" else None
    executor = compiled(encoder.backbone(Route.GATED), Route.GATED, precision=precision, calibration=calibration)
    images = torch.randn(3, 3, 32, 32)
    assert (executor(images, 0.2).ratio < executor(images, 0.9).ratio).all()
    assert torch.equal(executor(images).features, executor(images, 0.9).features)


# ---- the model, and what is refused ----


def digits_model(**settings: object) -> ssl_dc.Model:
    given = {"data.name": "digits", "backbone.width": 8, "budget.target": 0.9} | settings
    config = resolve([uniform_layer(given, "test")]).config
    return ssl_dc.Model(config, random_encoder(**settings))


@pytest.mark.long
def test_a_model_is_calibrated_on_its_own_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_dc.training_images.INT8_IMAGES", 32)
    model = digits_model()
    images = training_images(model.config, model.transform, 32)
    mine = model.compile_gated(precision="int8", calibration=images)
    assert torch.equal(model.compile_gated(precision="int8")(images[:8]).features, mine(images[:8]).features)
    assert model.compile_dense(precision="int8").precision == "int8"


@pytest.mark.long
def test_int8_is_close_to_float32_on_real_images() -> None:
    model = digits_model()
    images = training_images(model.config, model.transform, 256)
    for compile_route in (model.compile_dense, model.compile_gated):
        exact, close = compile_route()(images), compile_route(precision="int8", calibration=images[:64])(images)
        error = (close.features - exact.features).norm(dim=1) / exact.features.norm(dim=1)
        assert float(error.median()) < 0.05
    flips = [(close.masks[site] != mask).float().mean() for site, mask in exact.masks.items()]
    assert float(torch.stack(flips).mean()) < 0.01


def test_images_of_another_size_than_the_calibration_are_told_once() -> None:
    model = digits_model()
    compiled = model.compile_gated(precision="int8", calibration=torch.rand(4, 3, 32, 32))
    with pytest.warns(ssl_dc.CalibrationWarning, match="images of 32 x 32 pixels, and these have 48 x 40") as told:
        copy.deepcopy(compiled)(torch.rand(2, 3, 48, 40))
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(torch.rand(2, 3, 32, 32))
        model.compile_gated()(torch.rand(2, 3, 48, 40))
    with pytest.warns(ssl_dc.CalibrationWarning):
        compiled(torch.rand(1, 3, 48, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ssl_dc.CalibrationWarning)
        compiled(torch.rand(1, 3, 48, 40))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    executor = compiled(
        random_encoder().backbone(Route.GATED), Route.GATED, precision="int8", calibration=torch.randn(2, 3, 32, 32)
    )
    images = torch.randn(2, 3, 32, 32)
    images[0, 0, 3, 3] = value
    with pytest.warns(RuntimeWarning, match="of 2 images 1 holds NaN or infinity"):
        features = executor(images).features
    assert features[0].isnan().all()
    assert features[1].isfinite().all()
    assert len(executor(images[:0]).features) == 0


def test_unknown_precisions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="there is no precision 'fp8'; choose one of float32, bf16, int8"):
        digits_model().compile_gated(precision="fp8")


def test_calibration_images_are_for_int8() -> None:
    with pytest.raises(ValueError, match="calibration images are for int8; float32 takes none"):
        digits_model().compile_gated(calibration=torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.zeros(0, 3, 32, 32), "at least one image"),
        (torch.full((1, 3, 32, 32), torch.nan), "finite ones"),
        (torch.zeros(3, 32, 32), r"must be float32 \(N, 3, H, W\).*, not float32 \(3, 32, 32\)"),
    ],
)
def test_wrong_calibration_images_are_refused(images: Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        digits_model().compile_gated(precision="int8", calibration=images)


def test_torch_has_no_int8_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(RunError, match="the backend torch does not compute in int8"):
        digits_model().compile_gated(precision="int8", backend="torch", calibration=images)
    native_library._library.cache_clear()
    monkeypatch.setenv(native_library.NO_KERNEL, "1")
    with pytest.raises(RunError, match="switched off by SSL_DC_NO_KERNEL; the backend torch does not compute in int8"):
        digits_model().compile_gated(precision="int8", calibration=images)
    native_library._library.cache_clear()


@pytest.mark.parametrize(
    ("backbone", "size", "reason"),
    [
        (OwnBackbone(), 20, r"int8 cannot compute the step '.*' \(Call\)"),
        (Skipping(), 120, "int8 cannot compute the step"),
    ],
    ids=["a stranger's", "other operations"],
)
def test_a_network_that_int8_cannot_compute_is_refused(backbone: ssl_dc.Backbone, size: int, reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        compiled(backbone.eval(), Route.DENSE, precision="int8", calibration=torch.randn(1, 3, size, size))


def test_weights_that_are_not_finite_are_refused() -> None:
    encoder = random_encoder()
    with torch.no_grad():
        encoder.backbone(Route.GATED).conv1.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(RunError, match="int8 cannot compute the layer conv1, which has a weight that is not finite"):
        compiled(encoder.backbone(Route.GATED), Route.GATED, precision="int8", calibration=torch.randn(1, 3, 32, 32))


def test_more_threads_than_one_image_needs() -> None:
    plan = int8_plan(random_encoder(**{"backbone.width": 4}), Route.GATED, 9)
    images = torch.randn(1, 3, 9, 9)
    assert_equal_to_the_statement(plan, *executor_of(plan, 16)._runner(images), images)
