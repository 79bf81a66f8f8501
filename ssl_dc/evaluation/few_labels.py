"""Learning from a share of the labels only."""

from __future__ import annotations

from ssl_dc.data.base import Splits
from ssl_dc.data.held_out import held_out_indices
from ssl_dc.data.subsets import Subset
from ssl_dc.evaluation.features import labels_of


def with_label_share(splits: Splits, share: float | None, seed: int) -> Splits:
    """The splits with fewer images to learn from, the same share of each class and at least one. The test images stay.

    Args:
        splits: The images.
        share: The share, in (0, 1]; None and 1 for all.
        seed: Of the draw, at least 0.

    Raises:
        DataError: If the images have no labels.
    """
    if share is None or share == 1:
        return splits
    images = splits.evaluation_train
    return splits._replace(evaluation_train=Subset(images, held_out_indices(labels_of(images), len(images), share, seed)))


def label_settings(share: float | None, seed: int) -> dict[str, float | int]:
    """What a report says of it."""
    return {} if share is None else {"label_share": share, "label_seed": seed}
