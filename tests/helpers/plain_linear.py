"""The linear protocol the plain way: one classifier at a time, by torch's own layer, loss, optimiser and schedule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from ssl_dc.seeds import derived_seed

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class PlainClassifier:
    """One linear layer that learns from features, one epoch at a time."""

    def __init__(self, feature_dim: int, classes: int, *, seed: int = 0, epochs: int = 100, batch_size: int = 512) -> None:
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(derived_seed(seed))
        self.layer = nn.Linear(feature_dim, classes)
        with torch.no_grad():
            self.layer.weight.uniform_(-(feature_dim**-0.5), feature_dim**-0.5, generator=self.generator)
            self.layer.bias.zero_()
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=0.3, momentum=0.9)
        milestones = [round(share * epochs) for share in (0.6, 0.8)]
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, milestones)

    def epoch(self, features: Features, labels: Labels) -> None:
        x, y = torch.from_numpy(features), torch.from_numpy(labels)
        for batch in torch.randperm(len(x), generator=self.generator).split(self.batch_size):
            self.optimizer.zero_grad()
            F.cross_entropy(self.layer(x[batch]), y[batch]).backward()
            self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def accuracy(self, features: Features, labels: Labels) -> float:
        predicted = self.layer(torch.from_numpy(features)).argmax(dim=1).numpy()
        return float(100 * np.mean(predicted == labels))
