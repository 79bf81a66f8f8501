"""How far views are apart, for objectives of any number of views."""

from __future__ import annotations

from torch import Tensor


def distance_to_mean(z: Tensor) -> Tensor:
    """Mean squared distance of the embeddings (V, N, D) of V views to the mean of the views, over all elements."""
    return (z - z.mean(dim=0)).square().mean()
