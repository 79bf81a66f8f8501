"""Makes the gated route of a run static, by what its gates do on training images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.static import make_static
from ssl_dc.data.base import ImageSet
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import sample
from ssl_dc.model import Model

CALIBRATION_IMAGES = 1024
"""How many training images say which channels are seldom open."""
BATCH = 256


@dataclass(frozen=True)
class StaticPlan:
    """The gated route of a model, made static.

    Attributes:
        plan: The static network.
        gated: The gated route that it was made from.
        executor: Runs the gated route.
    """

    plan: Plan
    gated: Plan
    executor: Executor


def static_plan(
    model: Model, images: ImageSet, min_open_share: float, *, multiple: int = 1, workers: int = 0
) -> StaticPlan:
    """Remove what is open for less than a share of the images.

    Args:
        model: With gates, on the CPU.
        images: Training images of its data set; up to ``CALIBRATION_IMAGES`` of them are used.
        min_open_share: The share, in [0, 1].
        multiple: See :func:`ssl_dc.compiled.static.make_static`.
        workers: Processes that prepare images.

    Raises:
        RunError: If the model has no gates, or cannot be compiled or made static.
    """
    executor = model.compile_gated()
    gated = fuse(capture(model.encoder.backbone(model.gated_route), model.gated_route))
    shares = open_shares(executor, model, sample(images, CALIBRATION_IMAGES), workers)
    return StaticPlan(make_static(gated, shares, min_open_share, multiple=multiple), gated, executor)


def open_shares(executor: Executor, model: Model, images: ImageSet, workers: int = 0) -> dict[str, Tensor]:
    """For each site the share of images for which each entry of its mask is open, (channels,) float32."""
    masks = [executor(batch).masks for batch in batches(model, images, workers)]
    return {site: torch.cat([some[site] for some in masks]).mean(dim=0) for site in masks[0]}


def batches(model: Model, images: ImageSet, workers: int) -> Iterable[Tensor]:
    """The images in batches (n, 3, H, W), as the model takes them."""
    return DataLoader(Prepared(images, model.transform), batch_size=BATCH, num_workers=workers)
