"""Objectives whose head is the expander: their terms and gradients against the equations, and what the views share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.objectives import (
    Array,
    barlow_twins_terms,
    central_differences,
    embeddings,
    on_embeddings,
    run,
    vicreg_terms,
    weighted_sum,
)
from ssl_dc.objectives.barlow_twins import BarlowTwins
from ssl_dc.objectives.base import Objective
from ssl_dc.objectives.options import BarlowTwinsOptions, ExpanderOptions, VICRegOptions
from ssl_dc.objectives.vicreg import VICReg


class Stated(NamedTuple):
    """An objective, its equations, and the sizes of embeddings at which every part of them shows."""

    build: Callable[[ExpanderOptions, int], Objective]
    options: Callable[..., ExpanderOptions]
    terms: Callable[[Array, Array], dict[str, float]]
    scales: tuple[float, ...]


STATED = {
    "vicreg": Stated(VICReg, VICRegOptions, vicreg_terms, (0.01, 0.3, 2.0)),
    # with weights of one order, so that both terms show in the gradient; at 0.003 the eps of the standardisation shows
    "barlow_twins": Stated(
        BarlowTwins, partial(BarlowTwinsOptions, off_diagonal=0.3, scale=0.1), barlow_twins_terms, (0.003, 0.3, 20.0)
    ),
}
NAMES = pytest.mark.parametrize("name", STATED)


def with_expander(name: str, feature_dim: int, width: int) -> Objective:
    build, options, *_ = STATED[name]
    return build(options(expander_width=width), feature_dim)


def stated(name: str) -> Objective:
    return on_embeddings(with_expander(name, feature_dim=4, width=4))


@NAMES
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(2, 8), columns=st.integers(2, 5), size=st.integers(0, 2))
def test_terms_are_those_of_the_equations(name: str, seed: int, rows: int, columns: int, size: int) -> None:
    z1, z2 = embeddings(seed, rows, columns, STATED[name].scales[size])
    output = run(stated(name), torch.from_numpy(z1), torch.from_numpy(z2))
    expected = STATED[name].terms(z1, z2)
    assert set(output.terms) == set(expected)
    for term, value in expected.items():
        assert output.terms[term].shape == ()
        assert output.terms[term].item() == pytest.approx(value, rel=1e-3, abs=1e-5), term


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in STATED for scale in STATED[name].scales])
def test_gradient_is_that_of_the_equations(name: str, scale: float) -> None:
    z1, z2 = embeddings(seed=3, rows=6, columns=4, scale=scale)
    objective = stated(name)

    def plain_loss(one: Array, two: Array) -> float:
        return sum(objective.weights[term] * value for term, value in STATED[name].terms(one, two).items())

    t1, t2 = torch.from_numpy(z1).requires_grad_(), torch.from_numpy(z2).requires_grad_()
    weighted_sum(objective, run(objective, t1, t2)).backward()
    for tensor, gradient in zip((t1, t2), central_differences(plain_loss, z1, z2), strict=True):
        assert tensor.grad is not None
        size = np.abs(gradient).max()
        assert size > 0
        np.testing.assert_allclose(tensor.grad.numpy(), gradient, rtol=1e-3, atol=1e-4 * size)


@NAMES
def test_terms_are_computed_in_float32_from_bf16_embeddings_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    objective = with_expander(name, feature_dim=6, width=8)
    features = [(torch.randn(16, 6) + 1).to(torch.bfloat16) for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(objective, *features)
    z1, z2 = output.embeddings
    assert z1.dtype is torch.bfloat16, "the test is idle if the expander does not run in bf16"
    expected = STATED[name].terms(z1.detach().double().numpy(), z2.detach().double().numpy())
    for term, value in expected.items():
        assert output.terms[term].dtype is torch.float32
        assert output.terms[term].item() == pytest.approx(value, rel=2e-5), term


@NAMES
def test_large_half_precision_embeddings_do_not_overflow(name: str) -> None:
    torch.manual_seed(0)
    z1, z2 = (1000 * torch.randn(16, 4)).half(), (1000 * torch.randn(16, 4)).half()
    terms = run(stated(name), z1, z2).terms
    for term, value in STATED[name].terms(z1.double().numpy(), z2.double().numpy()).items():
        assert terms[term].item() == pytest.approx(value, rel=1e-5), term


@NAMES
def test_expander_has_the_layers_of_the_method(name: str) -> None:
    assert STATED[name].options().expander_width == 2048
    expander = with_expander(name, feature_dim=5, width=12).get_submodule("expander")
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    layers = list(expander.children())
    assert all(isinstance(layer, kind) for layer, kind in zip(layers, kinds, strict=True))
    widths = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
    assert widths == [(5, 12), (12, 12), (12, 12)]


@NAMES
def test_views_share_one_expander_but_are_normalised_apart(name: str) -> None:
    torch.manual_seed(0)
    objective = with_expander(name, feature_dim=5, width=8)
    x, y = torch.randn(9, 5), torch.randn(9, 5) * 3 + 2
    same, mixed = run(objective, x, x).embeddings, run(objective, x, y).embeddings
    assert torch.equal(same[0], same[1])
    assert torch.equal(mixed[0], same[0])
    assert torch.equal(mixed[1], run(objective, y, x).embeddings[0])
