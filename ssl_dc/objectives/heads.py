"""Heads that objectives put on the features."""

from __future__ import annotations

from torch import Tensor, nn

from ssl_dc.distributed import gather_batch, local_rows


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """Batch norm whose training statistics are those of the global batch, on any device.

    ``torch.nn.SyncBatchNorm`` refuses CPU tensors. This layer gathers the activations (N, D), which costs little. In one
    process it is :class:`torch.nn.BatchNorm1d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, D) by the statistics of the global batch or, in evaluation mode, by the running ones."""
        if not self.training:
            return super().forward(x)
        return local_rows(super().forward(gather_batch(x)), x.shape[0])


class Expander(nn.Sequential):
    """The expander of VICReg and Barlow Twins: Linear, BN, ReLU, Linear, BN, ReLU, Linear (method section 2).

    Args:
        feature_dim: Width of the features.
        width: Width of the two hidden layers and of the embedding.
    """

    def __init__(self, feature_dim: int, width: int) -> None:
        super().__init__(
            nn.Linear(feature_dim, width),
            GlobalBatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            GlobalBatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
        )
