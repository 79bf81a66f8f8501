"""A model, as a user of the library meets it."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ssl_dc
from helpers.settings import config_of
from ssl_dc import ConfigError, Model, RunError
from ssl_dc.gating.base import set_budgets, set_threshold
from ssl_dc.routes import Route
from ssl_dc.views.pixels import evaluation_transform


def model(**settings: Any) -> Model:
    tiny = {"backbone.width": 4, "data.image_size": 8}
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return Model.untrained(config_of({**tiny, **given}))


def images(n: int = 6, size: int = 8) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 32),
        ({"encoder__name": "double"}, 32),
        ({"gating__name": "convnet_aig"}, 32),
        ({"backbone__name": "resnet50", "budget__target": 0.9}, 128),
    ],
)
def test_shapes_of_what_the_routes_give(settings: dict[str, Any], width: int) -> None:
    it = model(**settings)
    assert it.feature_dim == width
    assert it.routes == (Route.DENSE, Route.GATED)
    assert it.dense(images()).shape == (6, width)
    gated = it.gated(images())
    assert gated.features.shape == (6, width)
    assert gated.macs.shape == gated.ratio.shape == (6,)
    assert set(gated.masks) == set(it.cost.channels)
    for site, mask in gated.masks.items():
        assert mask.shape == (6, it.cost.channels[site])
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
    for tensor in (it.dense(images()), gated.features, gated.macs, gated.ratio, *gated.masks.values()):
        assert not tensor.requires_grad


def test_ratio_is_cost_as_a_share_of_the_dense_cost() -> None:
    it = model()
    gated = it.gated(images(32))
    assert torch.allclose(gated.ratio.double(), gated.macs / it.cost.dense_macs, atol=1e-6)
    assert torch.equal(gated.macs, gated.macs.round())
    assert it.cost.floor_macs <= gated.macs.min()
    assert gated.macs.max() <= it.cost.dense_macs + sum(layer.macs for layer in it.cost.layers if layer.gate)
    assert len(gated.macs.unique()) > 1


def test_an_image_costs_the_same_alone_and_in_a_batch() -> None:
    it = model()
    together = it.gated(images())
    alone = [it.gated(images()[i : i + 1]) for i in range(6)]
    assert torch.equal(together.macs, torch.cat([one.macs for one in alone]))
    assert torch.allclose(together.features, torch.cat([one.features for one in alone]), atol=1e-5)


def test_a_model_answers_the_same_every_time_and_is_not_changed() -> None:
    it = model()
    before = {name: value.clone() for name, value in it.encoder.state_dict().items()}
    assert torch.equal(it.gated(images()).features, it.gated(images()).features)
    assert torch.equal(it.dense(images()), it.dense(images()))
    assert all(torch.equal(value, before[name]) for name, value in it.encoder.state_dict().items())


def test_images_of_another_size_cost_what_that_size_costs() -> None:
    it = model()
    larger = it.gated(images(size=16))
    assert torch.allclose(larger.ratio.double(), larger.macs / it.encoder.cost_model(16).dense_macs, atol=1e-6)
    assert larger.macs.min() > it.gated(images()).macs.max()


def counted(it: Model, height: int, width: int) -> int:
    """MACs of the convolutions that the dense route runs outside gates, from the shapes of their outputs."""
    total = 0

    def count(conv: torch.nn.Conv2d, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.shape[2] * output.shape[3] * conv.weight.numel()

    other = copy.deepcopy(it)
    for module in other.encoder.backbone(Route.DENSE).modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    other.dense(torch.zeros(1, 3, height, width))
    return total


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (9, 14), (32, 16)])
def test_images_that_are_not_square_cost_what_they_cost(height: int, width: int) -> None:
    it = model()
    wide = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    dense = counted(it, height, width)
    gated = it.gated(wide)
    assert torch.allclose(gated.ratio.double(), gated.macs / dense, atol=1e-6)
    executed = it.compile_gated()(wide)
    assert torch.equal(executed.macs, gated.macs)
    assert torch.allclose(executed.features, gated.features, atol=1e-4)
    assert it.compile_dense()(wide).macs.tolist() == [dense] * 4


def test_a_model_without_gates_has_no_gated_route() -> None:
    it = model(gating__name="none")
    assert not it.has_gates
    assert it.routes == (Route.DENSE,)
    assert it.dense(images()).shape == (6, 32)
    with pytest.raises(RunError, match="'none'"):
        it.gated(images())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 3, 0, 8), (3,), (1, 2, 3, 8, 8)], ids=str)
def test_images_of_another_shape_are_refused_naming_it(shape: tuple[int, ...]) -> None:
    it = model()
    for route in (it.dense, it.gated):
        with pytest.raises(ValueError, match=r"\(N, 3, H, W\)") as caught:
            route(torch.zeros(shape))
        assert str(shape) in str(caught.value)


def test_transform_is_what_evaluation_sees() -> None:
    it = model()
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    tensor = it.transform(image)
    assert tensor.shape == (3, 8, 8)
    assert tensor.dtype == torch.float32
    data = it.config.data
    assert torch.equal(tensor, evaluation_transform(8, data.mean, data.std)(image))
    assert it.dense(tensor[None]).shape == (1, 32)


def test_transform_normalises_by_the_config() -> None:
    it = model(data__mean=[0.0, 0.5, 1.0], data__std=[1.0, 0.5, 0.25])
    tensor = it.transform(Image.new("RGB", (8, 8), (255, 255, 255)))
    assert tensor[:, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


def test_the_same_config_starts_from_the_same_weights() -> None:
    one, two, other = model(), model(), model(seed=1)
    for name, value in one.encoder.state_dict().items():
        assert torch.equal(value, two.encoder.state_dict()[name])
    assert not torch.equal(one.dense(images()), other.dense(images()))


def test_a_model_is_in_evaluation_mode() -> None:
    assert not any(module.training for module in model().encoder.modules())


@pytest.mark.parametrize(
    "given",
    [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), np.zeros((2, 3, 8, 8), np.float32), [1, 2], None],
    ids=["uint8", "array", "list", "none"],
)
def test_what_is_no_tensor_of_floats_is_refused_in_words(given: Any) -> None:
    for verb in (model().dense, model().gated):
        with pytest.raises(
            TypeError, match=r"images must be float32 \(N, 3, H, W\), each as model.transform gives it, not "
        ):
            verb(given)


# a torch module


DTYPES = [torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_model_computes_in_the_dtype_it_is_moved_to(dtype: torch.dtype) -> None:
    exact, moved = model(), model().to(dtype)
    assert (moved.device.type, moved.dtype) == ("cpu", dtype)
    for given in (images(), images().to(dtype)):
        gated = moved.gated(given)
        for features, expected in (
            (moved.dense(given), exact.dense(images())),
            (gated.features, exact.gated(images()).features),
        ):
            assert features.dtype is dtype
            assert torch.allclose(features.float(), expected, atol=0.1)
        assert gated.macs.dtype is torch.float64
        assert torch.equal(gated.macs, gated.macs.round())
        assert set(torch.cat([mask.flatten() for mask in gated.masks.values()]).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8], ids=str)
def test_a_float32_model_takes_images_in_float32_only_by_every_path(dtype: torch.dtype) -> None:
    it, given = model(), images().to(dtype)
    paths = (it, it.dense, it.gated, it.compile_gated(), it.compile_dense())
    said = set()
    for path in paths:
        with pytest.raises(TypeError, match=r"images must be float32 \(N, 3, H, W\)") as caught:
            path(given)
        said.add(str(caught.value).replace(" on the CPU", "").replace(" on cpu", ""))
    (message,) = said
    assert f"not {str(dtype).removeprefix('torch.')} {tuple(given.shape)}" in message
    assert ("take pictures in uint8" in message) == (dtype is torch.uint8)


def test_a_compiled_route_has_the_budget_that_it_is_given() -> None:
    it = model(budget__target="0.2,0.4,0.9")
    for row, budget in enumerate(it.config.budget.budgets):
        set_threshold(it.encoder, 0.2 - 0.4 * budget, row)
    fast = it.compile_gated(budget=0.4)
    assert torch.equal(fast(images()).macs, it.gated(images(), 0.4).macs)
    assert torch.equal(fast(images(), 0.9).macs, it.gated(images(), 0.9).macs)
    assert fast(images()).macs.mean() < fast(images(), 0.9).macs.mean()
    for wrong in (0.0, 1.5, [0.4, 0.5]):
        with pytest.raises(ValueError, match="budget"):
            it.compile_gated(budget=wrong)  # type: ignore[arg-type]


def test_what_a_compiled_call_gives_says_what_it_is() -> None:
    it = model()
    done = it.compile_gated()(images())
    cost = f"mean ratio {float(done.ratio.mean()):.4f}"
    assert repr(done) == f"Executed({len(images())} images, {it.feature_dim} features, {len(done.masks)} masks, {cost})"
    assert repr(it.compile_dense()(images()[:0])) == f"Executed(0 images, {it.feature_dim} features, dense)"


def test_a_model_can_be_moved_to_a_device_without_memory() -> None:
    it = model().to("meta")
    assert it.device.type == "meta"
    gated = it.gated(images())
    assert {tensor.device.type for tensor in (it.dense(images()), gated.features, gated.macs, gated.ratio)} == {"meta"}


def test_a_model_of_another_dtype_compiles_in_float32_and_stays_as_it_is() -> None:
    it = model().to(torch.bfloat16)
    compiled = it.compile_gated()(images())
    assert it.dtype is torch.bfloat16
    assert compiled.features.dtype is torch.float32
    assert torch.allclose(compiled.features, it.float().gated(images()).features, atol=1e-4)


def test_parameters_and_state_are_those_of_the_encoder() -> None:
    it = model()
    assert [id(p) for p in it.parameters()] == [id(p) for p in it.encoder.parameters()]
    assert it.state_dict().keys() == {f"encoder.{name}" for name in it.encoder.state_dict()}


def same(one: Model, other: Model) -> None:
    """Two models that share no memory give the same, bit for bit."""
    assert {p.data_ptr() for p in one.parameters()}.isdisjoint(p.data_ptr() for p in other.parameters())
    assert one.cost == other.cost
    assert not other.training
    assert torch.equal(one.dense(images()), other.dense(images()))
    for mine, theirs in zip(one.gated(images())[:3], other.gated(images())[:3], strict=True):
        assert torch.equal(mine, theirs)  # type: ignore[arg-type]


def test_a_state_dict_makes_another_model_the_same() -> None:
    from safetensors.torch import load, save

    it, other = model(seed=1), model(seed=2)
    assert not torch.equal(it.dense(images()), other.dense(images()))
    content = save({name: value.contiguous() for name, value in it.state_dict().items()})
    other.load_state_dict(load(content))
    same(it, other)


@pytest.mark.parametrize("settings", [{}, {"gating__name": "convnet_aig"}, {"encoder__name": "double"}], ids=str)
def test_a_copy_is_a_model_of_its_own(settings: dict[str, Any]) -> None:
    it = model(**settings)
    assert copy.deepcopy(it).config == it.config
    same(it, copy.deepcopy(it))
    same(it, pickle.loads(pickle.dumps(it)))
    buffer = io.BytesIO()
    torch.save(it, buffer)
    buffer.seek(0)
    same(it, torch.load(buffer, weights_only=False))


def answer(it: Model, given: torch.Tensor, answers: Any) -> None:
    gated = it.gated(given)
    answers.put([tensor.numpy() for tensor in (it.dense(given), gated.features, gated.macs)])


@pytest.mark.long
def test_a_model_may_be_sent_to_a_spawned_process() -> None:
    it = model()
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=answer, args=(it, images(), answers))
    process.start()
    dense, features, macs = answers.get()
    process.join(300)
    assert process.exitcode == 0
    assert np.allclose(dense, it.dense(images()), atol=1e-5)
    assert np.allclose(features, it.gated(images()).features, atol=1e-5)
    assert np.array_equal(macs, it.gated(images()).macs)


def test_what_prepares_images_holds_nothing_of_the_network() -> None:
    assert len(pickle.dumps(model().transform)) < 4096


def test_it_says_what_it_is_in_a_few_lines() -> None:
    it = model()
    parameters = sum(p.numel() for p in it.encoder.parameters())
    assert repr(it).splitlines() == [
        "Model(",
        "  network: resnet18, width 4, 8 px, encoder shared",
        "  routes: dense, gated (dgnet, trained for budget 0.3)",
        f"  parameters: {parameters:,}, float32 on cpu",
        f"  MACs an image: {it.cost.dense_macs:,} dense, at least {it.cost.floor_macs:,} gated",
        ")",
    ]
    with pytest.warns(ssl_dc.DialledWarning):
        asked = repr(it.at_budget(0.25, 0.4))
    assert "  routes: dense, gated@0.25, gated@0.4 (dgnet, trained for budget 0.3)\n" in asked
    bare = repr(model(gating__name="none").to(torch.bfloat16))
    assert "routes: dense\n" in bare
    assert "bfloat16 on cpu" in bare
    assert f"{it.cost.dense_macs:,} dense\n" in bare


def test_features_are_those_of_evaluation_mode_whatever_mode_the_model_is_in() -> None:
    it = model()
    dense, gated = it.dense(images()), it.gated(images())
    it.train()
    it.encoder.backbone(Route.DENSE).get_submodule("conv1").eval()
    before = {name: value.clone() for name, value in it.state_dict().items()}
    assert torch.equal(it.dense(images()), dense)
    assert torch.equal(it.gated(images()).features, gated.features)
    assert all(torch.equal(value, before[name]) for name, value in it.state_dict().items())
    assert it.training
    assert not it.encoder.backbone(Route.DENSE).get_submodule("conv1").training


@pytest.mark.parametrize("route", Route.BOTH)
def test_calling_the_model_gives_features_to_train_on(route: Route) -> None:
    it = model().train()
    features, masks = it(images(), route)
    assert bool(masks) == route.gated
    features.square().sum().backward()
    assert it.encoder.backbone(route).get_parameter("conv1.weight").grad.abs().sum() > 0
    with pytest.raises(RunError, match="'none'"):
        model(gating__name="none")(images(), Route.GATED)


# images that are not finite


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "way",
    [
        lambda it, x: it.dense(x),
        lambda it, x: it.gated(x).features,
        lambda it, x: it(x).features,
        lambda it, x: it.features(x, batch_size=2),
        lambda it, x: it.compile_gated()(x).features,
    ],
    ids=["dense", "gated", "call", "features", "compiled"],
)
def test_images_that_are_not_finite_are_named_once(way: Any, value: float) -> None:
    it, x = model(), images(6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        way(it, x)
    x[4, 1, 2, 3] = value
    said = "of 6 images 1 holds NaN or infinity, and its features mean nothing: number 4"
    with pytest.warns(RuntimeWarning, match=f"^{said}$") as caught:
        features = way(it, x)
    assert [Path(each.filename) for each in caught] == [Path(__file__)]
    assert features[[0, 1, 2, 3, 5]].isfinite().all()
    x[:, 0, 0, 0] = value
    with pytest.warns(RuntimeWarning, match="of 6 images 6 hold NaN .* their .*: numbers 0, 1, 2, 3, 4, 5$"):
        way(it, x)


def test_images_whose_values_torch_does_not_show_are_not_looked_at() -> None:
    it = model()
    mapped = torch.func.vmap(lambda x: it(x[None]).features[0])(images())
    assert torch.allclose(mapped, it.dense(images()), atol=1e-5)


# loaded onto a device


@pytest.fixture(scope="module")
def run(finished_run: ssl_dc.Run) -> Path:
    return finished_run.folder


def test_a_run_is_loaded_onto_the_cpu_unless_told_otherwise(run: Path) -> None:
    assert ssl_dc.load(run).device.type == "cpu"
    assert ssl_dc.load(run, device="meta").device.type == "meta"
    assert ssl_dc.load(run, device=torch.device("cpu")).device.type == "cpu"
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert ssl_dc.load(run, device="auto").device.type == best


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", "", "xla"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(run: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=rf"device '{device}' is not on this machine; allowed: auto, (cuda, )?.*cpu"):
        ssl_dc.load(run, device=device)


@pytest.mark.cuda
def test_a_run_is_loaded_evaluated_and_compiled_on_cuda(run: Path) -> None:
    it, there = ssl_dc.load(run), ssl_dc.load(run, device="cuda")
    assert there.device.type == "cuda"
    gated, expected = there.gated(images()), it.gated(images())
    assert {tensor.device.type for tensor in (*gated[:3], *gated.masks.values())} == {"cuda"}  # type: ignore[union-attr]
    assert torch.allclose(there.dense(images()).cpu(), it.dense(images()), atol=1e-2)
    assert torch.allclose(gated.features.cpu(), expected.features, atol=1e-2)
    assert torch.equal(gated.macs.cpu(), expected.macs)
    assert there.to(torch.bfloat16).dense(images()).dtype is torch.bfloat16
    assert torch.equal(
        ssl_dc.load(run, device="cuda").compile_gated()(images()).features, it.compile_gated()(images()).features
    )
    on_cpu, on_cuda = (ssl_dc.evaluate(run, "knn", device=device) for device in ("cpu", "cuda"))
    for route, score in on_cpu.routes.items():
        assert on_cuda.routes[route].macs == pytest.approx(score.macs, rel=1e-3)
        assert on_cuda.routes[route].top1 == pytest.approx(score.top1, abs=10)


def test_budgets_of_a_wrong_kind_or_number_are_one_message(run: Path) -> None:
    x, gated_model = torch.randn(2, 3, 8, 8), ssl_dc.load(run)
    for model in (gated_model.gated, gated_model.compile_gated()):
        for wrong in ("0.25", "x", [[0.2]], object()):
            with pytest.raises(TypeError, match="a budget is a number, or a list with one for each image, not"):
                model(x, wrong)
        with pytest.raises(ValueError, match="there are 3 budgets for 2 images"):
            model(x, [0.2, 0.3, 0.4])
        assert model(x, torch.tensor(0.3)).features.shape == model(x, torch.tensor([0.3, 0.3])).features.shape


def test_a_budget_may_be_a_whole_number(run: Path) -> None:
    x, model = torch.randn(2, 3, 8, 8), ssl_dc.load(run)
    whole = model.encoder(x, Route(gated=True, budget=1)).features
    assert torch.equal(whole, model.encoder(x, Route.at(1.0)).features)


def test_a_compiled_network_warns_of_budgets_without_thresholds_as_the_model_does(run: Path) -> None:
    x, gated_model = torch.randn(1, 3, 8, 8), ssl_dc.load(run)
    compiled = gated_model.compile_gated()
    for network in (gated_model.gated, compiled):
        with pytest.warns(ssl_dc.DialledWarning, match=r"no thresholds for a budget of 0\.05"):
            network(x, 0.05)


def test_every_gated_route_without_a_budget_takes_that_of_at_budget(finished_run: ssl_dc.Run) -> None:
    model = ssl_dc.load(finished_run.folder)
    with pytest.warns(ssl_dc.DialledWarning):
        other = model.at_budget(0.9)
    images = torch.randn(4, 3, 8, 8)
    set_budgets(other.encoder, [0.3, 0.9], 0.3)
    set_threshold(other.encoder, -1e3, 1)
    expected = other.gated(images).features
    assert not torch.equal(model.gated(images).features, expected)
    assert torch.equal(other.features(images, "gated"), expected)
    assert torch.equal(other.features(images, Route.GATED), expected)
    assert torch.equal(other(images, Route.GATED).features, expected)
    with pytest.warns(ssl_dc.DialledWarning, match=r"no thresholds for a budget of 0\.05"):
        model.features(images, "gated@0.05")
