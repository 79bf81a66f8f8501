"""Random numbers that are a function of a few whole numbers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)


def chances(seed: int, epoch: int, indices: npt.ArrayLike, number: int, count: int) -> Tensor:
    """Uniform random numbers for one view of each of some images.

    They depend on the arguments alone: not on the batch an image is in, the process, or what was drawn before. So views
    drawn on another number of processes, or after a resume, are the same. The generator is SplitMix64 (Steele et al. 2014).

    Args:
        seed: The run's seed, at least 0.
        epoch: The epoch, from 0.
        indices: Numbers of the images, (N,).
        number: Number of the view, from 0.
        count: How many numbers each image needs.

    Returns:
        (N, count) float32 in [0, 1).
    """
    key = np.zeros(1, np.uint64)
    for part in (seed, epoch, number, np.asarray(indices, np.uint64)):
        key = _mixed((key + _STEP) ^ np.asarray(part, np.uint64))
    words = _mixed(key[:, None] + _STEP * np.arange(1, count + 1, dtype=np.uint64))
    return torch.from_numpy((words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def _mixed(words: Words) -> Words:
    """SplitMix64's output function, modulo 2**64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
