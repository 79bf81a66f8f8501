"""Two ways to classify the same images, compared with the error of the comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ssl_dc.data.base import Labels

SURE = 2.0
"""A difference counts from so many standard errors on."""


@dataclass(frozen=True)
class Difference:
    """How much better one way classifies than another.

    Attributes:
        points: Difference of the top-1 accuracies, in percentage points.
        standard_error: Of the difference, in percentage points, over draws of the images.
    """

    points: float
    standard_error: float

    @property
    def verdict(self) -> int:
        """1 if the difference is above twice its standard error, -1 if it is below minus that, else 0."""
        return int(self.points > SURE * self.standard_error) - int(self.points < -SURE * self.standard_error)

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.standard_error:.2f}"


def difference(labels: Labels, predicted: Labels, other: Labels) -> Difference:
    """Compare two ways on the same images, image by image.

    What both ways get right or wrong says nothing; b images that only the first gets right and c that only the other does
    decide. The standard error is that of (b - c) / n with half an image added to each of the four cells (Agresti and Min,
    2005), so that a few images never seem to be sure.

    Args:
        labels: The classes, (n,), n at least 1.
        predicted: What the first way says, (n,).
        other: What the other way says, (n,).
    """
    n = len(labels)
    right, other_right = predicted == labels, other == labels
    b, c = int(np.sum(right & ~other_right)), int(np.sum(~right & other_right))
    mean = (b - c) / (n + 2)
    variance = ((b + c + 1) / (n + 2) - mean**2) / (n + 2)
    return Difference(100 * (b - c) / n, 100 * math.sqrt(variance))
