"""What every network takes: one rule for batches of images, and one message."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def check_images(images: Tensor, dtypes: Sequence[torch.dtype] = (torch.float32,), *, device: str | None = None) -> None:
    """Refuse what is no batch of images as ``Model.transform`` gives them.

    Args:
        images: The images, (N, 3, H, W).
        dtypes: The dtypes that they may have.
        device: The type of the device that they must be on; None for any.

    Raises:
        TypeError: If they are no tensor, a sparse one, or have another dtype.
        ValueError: If they have another shape, or are on another device or on ``meta``.
    """
    allowed = " or ".join(dict.fromkeys(map(_short, dtypes)))
    where = "" if device is None else f" on {'the CPU' if device == 'cpu' else device}"
    wanted = f"images must be {allowed} (N, 3, H, W){where}, each as model.transform gives it"
    if not isinstance(images, Tensor):
        raise TypeError(f"{wanted}, not {type(images).__name__}")
    seen = f"{_short(images.dtype)} {tuple(images.shape)}" + ("" if device is None else f" on {images.device}")
    if images.layout is not torch.strided:
        raise TypeError(
            f"{wanted}, not a sparse tensor (layout {_short(images.layout)}); images.to_dense() gives a usual one"
        )
    if images.device.type == "meta":
        raise ValueError(f"{wanted}, not {seen.removesuffix(' on meta')} on meta, a device that holds no values")
    if images.dtype not in dtypes:
        uint8 = "; model.features and model.transform take pictures in uint8" if images.dtype is torch.uint8 else ""
        raise TypeError(f"{wanted}, not {seen}{uint8}")
    shaped = images.ndim == 4 and images.shape[1] == 3 and 0 not in images.shape[2:]
    if not shaped or (device is not None and images.device.type != device):
        raise ValueError(f"{wanted}, not {seen}")


def not_finite(images: Tensor) -> list[int]:
    """The numbers of the images (N, 3, H, W) that hold NaN or infinity. On a GPU the program waits for the answer."""
    if math.isfinite(_sum(images)):  # one quick pass is enough for the usual batch
        return []
    numbers: list[int] = (~images.flatten(1).isfinite().all(dim=1)).nonzero().flatten().tolist()
    return numbers


def _sum(images: Tensor) -> float:
    """The sum of all pixels.

    On a CPU not by torch: after a large sum its second thread spins for milliseconds, and takes a core from the threads of
    a compiled network.
    """
    if images.device.type != "cpu" or images.dtype != torch.float32:
        return float(images.sum())
    with np.errstate(all="ignore"):
        return float(images.detach().numpy().sum())


SHOWN = 10
"""How many images that are not finite a warning names."""


def warn_not_finite(numbers: Sequence[int], total: int, stacklevel: int) -> None:
    """Warn of images that are not finite (:class:`RuntimeWarning`), if there are any.

    Args:
        numbers: Their numbers, from 0.
        total: How many images there are.
        stacklevel: That of ``warnings.warn``, seen from here.
    """
    if not numbers:
        return
    what, label = (
        ("holds", "its features mean nothing: number")
        if len(numbers) == 1
        else ("hold", "their features mean nothing: numbers")
    )
    more = f" and {len(numbers) - SHOWN:,} more" if len(numbers) > SHOWN else ""
    named = ", ".join(map(str, numbers[:SHOWN]))
    warnings.warn(
        f"of {total:,} images {len(numbers):,} {what} NaN or infinity, and {label} {named}{more}",
        RuntimeWarning,
        stacklevel=stacklevel,
    )


def _short(dtype: torch.dtype | torch.layout) -> str:
    return str(dtype).removeprefix("torch.")
