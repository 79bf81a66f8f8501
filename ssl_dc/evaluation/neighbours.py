"""The exact nearest neighbours of features, by blocks of matrix products on any device, in bounded memory.

Distances are first taken in bfloat16, where that is faster, then in float32: a matrix product a block. Only the nearest
candidates are kept, and compared again in float64. Where rounding could have hidden a neighbour, the search is done again
in the next higher precision, in the end in float64, as where features are equal. What is found is therefore what a search
in float64 finds.

All distances here are halves of squared Euclidean ones: |x - y|^2 / 2 = |x|^2 / 2 + |y|^2 / 2 - x.y. Between features of
length 1 that is 1 - cosine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_dc.devices import in_float64

Metric = Literal["euclidean", "cosine"]

QUERIES, FEATURES = 2048, 2**14
"""Queries and features in a block: 64 MiB of distances in bfloat16, 128 MiB in float32."""

DISTANCES_64 = 2**24
"""Distances that are held at once in float64: 128 MiB."""

GATHERED = 2**11
"""Candidates that are compared at once: 8 MiB in float64 for features of width 512, which a processor's cache holds."""

CANDIDATES = (4, 16)
"""Candidates that are kept: for each neighbour asked for, and besides. The more, the fewer rows need a higher precision."""


NO_DIRECTION = 1e-15
"""A feature all of whose values are smaller has length 0 for ``cosine``."""


class Neighbours(NamedTuple):
    """The nearest features of each query.

    Attributes:
        indices: Their numbers, (m, k) int64, in no order that means anything.
        distances: Half of the squared distance of each, (m, k) float64; for ``cosine`` 1 - similarity, which is the same
            for features scaled to length 1.
    """

    indices: Tensor
    distances: Tensor


def nearest(features: Tensor, queries: Tensor, k: int, metric: Metric = "euclidean") -> Neighbours:
    """Find the k features that are nearest to each query.

    Of features that are equally near, those that come first are found. Features are equally near if their distances, in
    float64, differ by no more than rounding.

    Args:
        features: (n, d) float32, finite.
        queries: (m, d) float32, finite, on the same device, which is where the search runs.
        k: How many to find, in [1, n].
        metric: How near is measured. A feature of length 0 has the cosine similarity 0 with every query, and a query of
            length 0 with every feature.
    """
    space = _Space(features, metric)
    searches: list[_Bfloat16 | _Float32] = []
    if _bfloat16_is_faster(features.device.type):
        searches.append(_Bfloat16(space))
    if _keeps_float32(features.device):
        searches.append(_Float32(space))
    return _joined([_nearest_of_block(space, searches, block, k) for block in queries.split(QUERIES)])


class _Space:
    """Features as points between which distances are Euclidean.

    For ``cosine`` features are scaled to length 1. The origin is the mean of the points, where rounding disturbs distances
    least.

    Attributes:
        longest: The largest distance of a point from the origin.
    """

    def __init__(self, features: Tensor, metric: Metric) -> None:
        self.features = features
        self.metric = metric
        self.origin = torch.zeros(1)
        self.origin = torch.stack([points.sum(dim=0) for points in self.blocks()]).sum(dim=0) / len(features)
        self.longest = max(float(points.norm(dim=1).max()) for points in self.blocks())

    def blocks(self) -> Iterator[Tensor]:
        """The features as points in float32, in blocks."""
        return map(self.points, self.features.split(FEATURES))

    def points(self, features: Tensor, *, queries: bool = False) -> Tensor:
        """Some features, or queries, as points, in their own dtype."""
        origin = self.origin.to(features.device, features.dtype)
        if self.metric == "euclidean":
            return features - origin
        # What has no direction is put at a right angle to all: features along one more axis, queries along another.
        flat = torch.maximum(features.amax(dim=1), -features.amin(dim=1)) < NO_DIRECTION
        points = features.new_zeros(len(features), features.shape[1] + 2)
        points[:, :-2] = features / features.norm(dim=1, keepdim=True).masked_fill_(flat[:, None], torch.inf)
        points[:, -2 + queries] = flat.to(points.dtype)
        return points.sub_(origin)

    def rounding(self, points: Tensor) -> Tensor:
        """Upper bound of the rounding error of distances from points (m, d), computed in their dtype: (m, 1)."""
        lengths = points.norm(dim=1, keepdim=True)
        # Roundings of a sum of d products, and of the points themselves, whose lengths come of such sums.
        roundings = (2 * points.shape[1] + 16) * torch.finfo(points.dtype).eps / 2
        bound: Tensor = (lengths + self.longest) * (roundings * self.longest)
        return bound


class _Float32:
    """Distances in float32."""

    def __init__(self, space: _Space) -> None:
        self.space = space
        self.memory = space.features.new_empty(QUERIES * FEATURES)

    def left(self, queries: Tensor) -> Tensor:
        """The left factor of the product, from queries as points (m, d)."""
        return queries

    def blocks(self, left: Tensor) -> Iterator[Tensor]:
        """Distances (m, r) of queries from each block of features, but for a constant of each query."""
        for points in self.space.blocks():
            halves = points.square().sum(dim=1) / 2
            yield torch.addmm(halves, left, points.T, alpha=-1, out=_part(self.memory, len(left), len(points)))

    def sure(self, queries: Tensor, kth: Tensor, last: Tensor) -> Tensor:
        """Whether what is as far as ``last`` (m, 1), or farther, cannot be as near as ``kth`` (m, 1): (m, 1) bool."""
        return last - kth > 2 * self.space.rounding(queries)


class _Bfloat16:
    """Distances in bfloat16, of points that are rounded to it.

    One product gives the whole distance, by columns that hold the halves of the squared lengths, each as a sum of three
    numbers. The product is added up in float32 and rounded once.

    Attributes:
        most_lost: The farthest that rounding moves a point of the features.
    """

    def __init__(self, space: _Space) -> None:
        self.space = space
        self.memory = space.features.new_empty(QUERIES * FEATURES, dtype=torch.bfloat16)
        self.most_lost = 0.0
        self.right: list[Tensor] = []
        for points in space.blocks():
            self.most_lost = max(self.most_lost, float(_lost(points).max()))
            self.right.append(self._factor(points, halves_first=False))

    def left(self, queries: Tensor) -> Tensor:
        """The left factor of the product, from queries as points (m, d)."""
        return self._factor(-queries, halves_first=True)

    def blocks(self, left: Tensor) -> Iterator[Tensor]:
        """Distances (m, r) of queries from each block of features."""
        for right in self.right:
            yield torch.mm(left, right.T, out=_part(self.memory, len(left), len(right)))

    def sure(self, queries: Tensor, kth: Tensor, last: Tensor) -> Tensor:
        """Whether what is as far as ``last`` (m, 1), or farther, cannot be as near as ``kth`` (m, 1): (m, 1) bool."""
        rounding = torch.finfo(torch.bfloat16).eps / 2
        error = self.space.rounding(queries)
        if queries.device.type != "cpu":  # a GPU may add parts of a product that are rounded already
            error = error + 4 * rounding * self.space.longest * (queries.norm(dim=1, keepdim=True) + self.space.longest)
        most = (2 * (kth * (1 + rounding) + error)).sqrt()
        least = (2 * (last * (1 - rounding) - error)).clamp(min=0).sqrt()
        # Rounding moves a point by what is lost of it, and its distance by no more.
        sure: Tensor = least - most > 2 * (_lost(queries)[:, None] + self.most_lost)
        return sure

    @staticmethod
    def _factor(points: Tensor, *, halves_first: bool) -> Tensor:
        """The rounded points beside the halves of their squared lengths and ones, which multiply the other factor's."""
        rounded = points.bfloat16()
        rest = rounded.float().square().sum(dim=1) / 2
        halves = []
        for _ in range(3):
            halves.append(rest.bfloat16())
            rest = rest - halves[-1]
        ones = [torch.ones_like(halves[0])] * 3
        columns = [*halves, *ones] if halves_first else [*ones, *halves]
        return torch.cat([rounded, torch.stack(columns, dim=1)], dim=1)


def _lost(points: Tensor) -> Tensor:
    """How far rounding to bfloat16 moves each point, (m,)."""
    lost: Tensor = (points - points.bfloat16()).norm(dim=1)
    return lost


def _part(memory: Tensor, rows: int, columns: int) -> Tensor:
    """Memory that is used again for each block: making it anew takes longer than some products."""
    return memory[: rows * columns].view(rows, columns)


def _nearest_of_block(space: _Space, searches: list[_Bfloat16 | _Float32], queries: Tensor, k: int) -> Neighbours:
    """The nearest of some queries, each by the first search that is sure of them."""
    left = torch.arange(len(queries), device=queries.device)
    parts, rows = [], []
    for search in searches:
        candidates, sure = _candidates(space, search, queries[left], k)
        if sure.any():
            parts.append(_nearest_of_candidates(space, queries[left[sure]], candidates[sure], k))
            rows.append(left[sure])
        left = left[~sure]
        if not len(left):
            break
    else:
        parts.append(_nearest_in_float64(space, queries[left], k))
        rows.append(left)
    found = _joined(parts)
    order = torch.cat(rows).argsort().to(found.indices.device)
    return Neighbours(found.indices[order], found.distances[order])


def _candidates(space: _Space, search: _Bfloat16 | _Float32, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The candidates of queries, (m, c), and for which queries no neighbour can be missing among them, (m,) bool."""
    n = len(space.features)
    count = min(CANDIDATES[0] * k + CANDIDATES[1], n)
    points = space.points(queries, queries=True)
    left = search.left(points)
    indices = torch.empty((len(points), 0), dtype=torch.int64, device=points.device)
    distances = points.new_empty((len(points), 0))
    start = 0
    for block in search.blocks(left):
        near = block.topk(min(count, block.shape[1]), largest=False)
        indices = torch.cat([indices, near.indices + start], dim=1)
        distances = torch.cat([distances, near.values.float()], dim=1)
        if start:
            distances, kept = distances.topk(min(count, distances.shape[1]), largest=False)
            indices = indices.gather(1, kept)
        start += block.shape[1]
    sure = search.sure(points, distances[:, k - 1 : k], distances[:, -1:]).squeeze(1)
    return indices, sure | (count == n)


def _nearest_of_candidates(space: _Space, queries: Tensor, candidates: Tensor, k: int) -> Neighbours:
    """The k nearest of each query's candidates (m, c), by differences in float64."""
    found = []
    at_once = max(1, GATHERED // candidates.shape[1])
    for some, numbers in zip(queries.split(at_once), candidates.sort(dim=1).values.split(at_once), strict=True):
        points = space.points(in_float64(some), queries=True)
        others = space.points(in_float64(space.features[numbers.flatten()]))
        differences = others.view(*numbers.shape, -1).sub_(points[:, None])
        distances = torch.linalg.vecdot(differences, differences) / 2
        found.append(_chosen(distances, numbers.to(distances.device), space.rounding(points), k))
    return _joined(found)


def _nearest_in_float64(space: _Space, queries: Tensor, k: int) -> Neighbours:
    """The k nearest of all features, by distances in float64, some queries at a time."""
    found = []
    for some in queries.split(max(1, DISTANCES_64 // len(space.features))):
        points = space.points(in_float64(some), queries=True)
        half = points.square().sum(dim=1, keepdim=True) / 2
        parts = []
        for rows in space.features.split(FEATURES):
            others = space.points(in_float64(rows))
            parts.append(half + others.square().sum(dim=1) / 2 - points @ others.T)
        distances = torch.cat(parts, dim=1)
        numbers = torch.arange(distances.shape[1], device=distances.device).expand_as(distances)
        found.append(_chosen(distances, numbers, space.rounding(points), k))
    return _joined(found)


def _chosen(distances: Tensor, numbers: Tensor, error: Tensor, k: int) -> Neighbours:
    """The k smallest of distances (m, c); of equal ones those with the smallest numbers, which ascend in each row."""
    limit = distances.kthvalue(k, dim=1, keepdim=True).values
    # 0: nearer than the k-th; 1: as near as the k-th; 2: farther. The sort keeps the order of equals.
    rank = torch.ones_like(distances, dtype=torch.uint8)
    rank[distances < limit - 2 * error] = 0
    rank[distances > limit + 2 * error] = 2
    places = rank.sort(dim=1, stable=True).indices[:, :k]
    return Neighbours(numbers.gather(1, places), distances.gather(1, places))


def _joined(parts: list[Neighbours]) -> Neighbours:
    return Neighbours(torch.cat([part.indices for part in parts]), torch.cat([part.distances for part in parts]))


@cache
def _bfloat16_is_faster(device_type: str) -> bool:
    """Whether products of bfloat16 take less than half the time of those of float32, as a short trial shows."""
    try:
        return _seconds_of_product(torch.bfloat16, device_type) < _seconds_of_product(torch.float32, device_type) / 2
    except (RuntimeError, TypeError):  # a device without bfloat16
        return False


def _seconds_of_product(dtype: torch.dtype, device_type: str) -> float:
    left = torch.ones(128, 512, dtype=dtype, device=device_type)
    right = torch.ones(512, 1024, dtype=dtype, device=device_type)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _keeps_float32(device: torch.device) -> bool:
    """Whether products of float32 are what they say: settings of the process (TF32, bfloat16) can lower them."""
    value = 1 + 2.0**-12
    matrix = torch.full((256, 256), value, device=device)
    product = float((matrix @ matrix)[0, 0])
    return abs(product / (256 * value**2) - 1) < 2.0**-16
