"""Pictures as callers hand them over: files, PIL images, arrays, tensors, or many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ssl_dc.data.base import LeftOut
from ssl_dc.data.listing import pictures_below
from ssl_dc.data.pictures import PictureError, as_rgb, read_rgb
from ssl_dc.errors import DataError
from ssl_dc.printable import name_of

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Picture: TypeAlias = "Image.Image | str | os.PathLike[str] | npt.NDArray[Any] | Tensor"
"""One picture: see :func:`picture_of`."""
Pictures: TypeAlias = "Picture | Sequence[Picture]"
"""One picture, a list of them, or a batch as one array or tensor: see :func:`pictures_of`."""

_ALLOWED = "a path, a PIL image, a numpy array (H, W) or (H, W, C), a tensor (C, H, W), or a list of these"
_SLACK = 1e-3  # floats a little outside [0, 1], as of a resize, are clipped


def pictures_in(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of the pictures in a folder and in the folders below it, sorted. Files that are none are left out.

    Raises:
        DataError: If there is no such folder.
    """
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {os.fspath(folder)}.")
    return pictures_below(os.fspath(folder), LeftOut())


def is_many(given: Pictures) -> TypeIs[Sequence[Picture]]:
    """Whether more than one picture may be meant: a list, or an array or tensor of four dimensions."""
    if isinstance(given, (np.ndarray, Tensor)):
        return given.ndim == 4
    return isinstance(given, Sequence) and not isinstance(given, (str, bytes))


def pictures_of(given: Pictures) -> Iterator[Image.Image]:
    """The pictures that are meant, in RGB, one by one.

    Args:
        given: One picture, a list of them, an array (N, H, W, C), a tensor (N, C, H, W), or the path of a folder, of which
            :func:`pictures_in` lists the pictures.

    Raises:
        DataError: If a file cannot be read.
        TypeError: If something is no picture.
        ValueError: If an array or tensor has the shape or the values of none.
    """
    if isinstance(given, (str, os.PathLike)) and os.path.isdir(given):
        given = pictures_in(given)
    for one in given if is_many(given) else [given]:
        yield picture_of(one)


def transformed(given: Pictures, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """What the network sees of pictures: float32 (3, H, H) of one, (N, 3, H, H) of a list, array or tensor of N.

    Args:
        given: What :func:`pictures_of` takes, but no folder.
        transform: Makes (3, H, H) of an image in RGB.

    Raises:
        DataError: If it is a folder, or a file cannot be read.
        ValueError: If the list is empty.
    """
    if isinstance(given, (str, os.PathLike)) and os.path.isdir(given):
        raise DataError(f"image {name_of(os.fspath(given))} cannot be read: it is a folder; model.features takes folders.")
    if not is_many(given):
        return transform(picture_of(given))
    prepared = [transform(picture) for picture in pictures_of(given)]
    if not prepared:
        raise ValueError("there are no pictures in this list")
    return torch.stack(prepared)


def batches_of(given: Pictures, transform: Callable[[Image.Image], Tensor], size: int) -> Iterator[Tensor]:
    """Pictures as a network sees them, in batches of at most ``size``: float tensors (n, 3, H, W).

    Args:
        given: What :func:`pictures_of` takes. A tensor of floats (N, 3, H, W) is prepared already, and is only cut.
        transform: Prepares one picture.
        size: Pictures in a batch, at least 1.

    Raises:
        ValueError: If there are no pictures, or the size is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}")
    if isinstance(given, Tensor) and given.ndim == 4 and given.is_floating_point():
        yield from given.split(size)
        return
    prepared = map(transform, pictures_of(given))
    batch = list(islice(prepared, size))
    if not batch:
        raise ValueError(f"there are no pictures in {given if isinstance(given, (str, os.PathLike)) else 'this list'}")
    while batch:
        yield torch.stack(batch)
        batch = list(islice(prepared, size))


def picture_of(given: Picture) -> Image.Image:
    """One picture in RGB, as a viewer shows it.

    Args:
        given: A path; a PIL image of any mode; a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (1, H, W),
            (3, H, W), (4, H, W) or (H, W). Values are uint8, uint16, bool, or floats from 0 to 1. A fourth channel is how
            opaque the picture is.

    Raises:
        DataError: If a file cannot be read.
        TypeError: If it is something else.
        ValueError: If an array or tensor has another shape, or values of another range.
    """
    if isinstance(given, Image.Image):
        if type(given) is Image.Image and given.mode == "RGB" and not given.info:
            return given
        try:
            return as_rgb(given)
        except PictureError as error:
            raise DataError(f"a PIL image of mode {given.mode} cannot be read: {error}.") from error
    if isinstance(given, (str, os.PathLike)):
        return read_rgb(os.fspath(given), os.fspath(given))
    if isinstance(given, Tensor):
        return as_rgb(Image.fromarray(_eight_bits(_channels_last(given), "tensor (C, H, W)", tuple(given.shape))))
    if isinstance(given, np.ndarray):
        return as_rgb(Image.fromarray(_eight_bits(given, "numpy array (H, W, C)", given.shape)))
    raise TypeError(f"a picture is {_ALLOWED}; not {type(given).__name__}")


def _channels_last(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    values: npt.NDArray[Any] = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return values if values.ndim != 3 else values.transpose(1, 2, 0)


def _eight_bits(values: npt.NDArray[Any], form: str, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """An array (H, W) or (H, W, C) as uint8, (H, W), (H, W, 3) or (H, W, 4).

    Raises:
        ValueError: If its shape or its values are not those of a picture.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.size == 0 or values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ValueError(
            f"a picture as {form} has 1, 3 or 4 channels C and at least one pixel; its shape is not {tuple(shape)}"
        )
    return np.ascontiguousarray(_scaled(values))


def _scaled(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind != "f":
        raise ValueError(f"the values of a picture are uint8, uint16, bool, or floats from 0 to 1; not {values.dtype}")
    least, largest = float(values.min()), float(values.max())
    if not (least >= -_SLACK and largest <= 1 + _SLACK):  # also where some are not numbers
        raise ValueError(
            f"the values of a picture in floats are from 0 to 1, not from {least:.3g} to {largest:.3g}. A tensor that"
            " model.transform gave goes to model.dense or model.gated as it is"
        )
    return np.asarray(np.rint(values.clip(0, 1) * 255), np.uint8)
