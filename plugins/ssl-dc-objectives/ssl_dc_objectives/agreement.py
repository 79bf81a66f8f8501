"""How far views are apart, for objectives of any number of views."""

from __future__ import annotations

from torch import Tensor


def distance_to_mean(z: Tensor, global_count: int) -> Tensor:
    """Mean squared distance of the embeddings (V, N, D) of V views to the mean of the global views, over all elements.

    Args:
        z: The embeddings, those of the global views first.
        global_count: How many of the views are global.
    """
    return (z - z[:global_count].mean(dim=0)).square().mean()
