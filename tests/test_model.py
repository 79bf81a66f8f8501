"""A model, as a user of the library meets it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_dc import Model, RunError
from ssl_dc.config import resolve, uniform_layer
from ssl_dc.routes import Route
from ssl_dc.views.pixels import evaluation_transform


def model(**settings: Any) -> Model:
    tiny = {"backbone.width": 4, "data.image_size": 8}
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return Model.untrained(resolve([uniform_layer({**tiny, **given}, "test")]).config)


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


def test_a_model_without_gates_has_no_gated_route() -> None:
    it = model(gating__name="none")
    assert not it.has_gates
    assert it.routes == (Route.DENSE,)
    assert it.dense(images()).shape == (6, 32)
    with pytest.raises(RunError, match="'none'"):
        it.gated(images())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 3, 8, 9), (3,), (1, 2, 3, 8, 8)], ids=str)
def test_images_of_another_shape_are_refused_naming_it(shape: tuple[int, ...]) -> None:
    it = model()
    for route in (it.dense, it.gated):
        with pytest.raises(ValueError, match=r"\(N, 3, H, H\)") as caught:
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
    it = model(data__mean=[0.0, 0.5, 1.0], data__std=[1.0, 0.5, 2.0])
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
        with pytest.raises(TypeError, match=r"a tensor of floats \(N, 3, H, H\), each as Model.transform gives it, not "):
            verb(given)
