"""Real images to measure on: what the gates keep depends on the image."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.assemble import build_data_set
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.evaluation.cost import cost_images
from ssl_dc.model import Model


def example_images(model: Model, number: int) -> Tensor:
    """At most ``number`` of the images that the cost of the model is measured on: (n, 3, H, H) float32, normalised.

    Raises:
        DataError: If the model's data set cannot be opened.
    """
    images, _ = cost_images(open_splits(build_data_set(model.config)))
    prepared = Prepared(sample(images, number), model.transform)
    return torch.stack([prepared[index] for index in range(len(prepared))])
