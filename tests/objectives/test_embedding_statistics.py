"""The statistics that watch an embedding for collapse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssl_dc.objectives.statistics import effective_rank, mean_std, off_diagonal


def test_off_diagonal_is_every_entry_but_the_diagonal() -> None:
    matrix = torch.arange(9.0).reshape(3, 3)
    assert off_diagonal(matrix).tolist() == [1, 2, 3, 5, 6, 7]


def hadamard(size: int) -> Tensor:
    """Orthogonal rows and columns of +1 and -1; every column but the first sums to 0."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def test_effective_rank_counts_equal_directions() -> None:
    for rank in range(1, 8):
        assert effective_rank(hadamard(8)[:, 1 : 1 + rank]).item() == pytest.approx(rank, rel=1e-5)


def test_effective_rank_ignores_the_mean() -> None:
    z = hadamard(8)[:, 1:4]
    assert effective_rank(z + torch.tensor([5.0, -3, 100])).item() == pytest.approx(3, rel=1e-5)


def test_effective_rank_of_fewer_rows_than_dimensions() -> None:
    wide = hadamard(4)[:, 1:] @ hadamard(8)[:3]
    assert wide.shape == (4, 8)
    assert effective_rank(wide).item() == pytest.approx(3, rel=1e-4)


def test_effective_rank_is_the_entropy_of_singular_values_not_of_their_squares() -> None:
    z = hadamard(8)[:, 1:3] * torch.tensor([3.0, 1.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(z).item() == pytest.approx(math.exp(entropy), rel=1e-5)


def test_collapse_shows_as_effective_rank_one_and_no_spread() -> None:
    constant = torch.full((16, 8), 0.3)
    assert effective_rank(constant).item() == pytest.approx(1, abs=1e-3)
    assert mean_std(constant).item() == pytest.approx(0, abs=1e-6)
    line = torch.linspace(-1, 1, 16)[:, None] * torch.arange(1.0, 9)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)


def test_mean_std_averages_the_spread_of_dimensions() -> None:
    z = torch.tensor([[0.0, 10.0], [2.0, 14.0]], requires_grad=True)
    value = mean_std(z)
    assert value.item() == pytest.approx((math.sqrt(2) + math.sqrt(8)) / 2)
    assert not value.requires_grad
    assert mean_std(z.detach().to(torch.bfloat16)).dtype is torch.float32
