"""The matrix products of attention as a layer, so that a cost model can count them and name them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AttentionProducts(nn.Module):
    """Softmax attention between positions: queries with keys, and the resulting weights with values.

    The layer has no weights of its own. The cost model of a backbone counts its two matrix products.

    Args:
        scale: Factor of the products of queries and keys; by default 1 / sqrt(D).
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
        """The attended values (N, heads, T, E) of queries (N, heads, T, D), keys (N, heads, S, D), values (N, heads, S, E).

        Args:
            queries: What asks.
            keys: What is asked.
            values: What is averaged.
            bias: Added to the products of queries and keys before the softmax, of a shape that broadcasts to
                (N, heads, T, S). A boolean one says which keys a query may see.
        """
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=self.scale)

    def macs(self, queries: Tensor, keys: Tensor, values: Tensor) -> int:
        """MACs of both products."""
        pairs = queries.shape[:-1].numel() * keys.shape[-2]
        return pairs * (queries.shape[-1] + values.shape[-1])
