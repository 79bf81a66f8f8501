"""Training images as a network sees them, to measure ranges on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ssl_dc.assemble import build_data_set
from ssl_dc.config import RunConfig
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample

INT8_IMAGES = 256
"""Training images on which the ranges of activations are measured for int8."""


def training_images(config: RunConfig, transform: Callable[[Any], Tensor], number: int) -> Tensor:
    """At most ``number`` of the training images of a config's data set, not augmented.

    Args:
        config: Names the data set.
        transform: Gives an image as the network takes it.
        number: How many.

    Returns:
        (n, 3, H, H) float32, normalised.

    Raises:
        DataError: If the data set cannot be opened.
    """
    prepared = Prepared(sample(open_splits(build_data_set(config)).train, number), transform)
    return torch.stack([prepared[index] for index in range(len(prepared))])
