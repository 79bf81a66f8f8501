"""Transfer: the images of another data set, for an encoder that was trained elsewhere.

What makes it a transfer is the model: it prepares every image as its own training images, so those of the other data set
are resized to the size it was trained at and normalised with the colours it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_dc.assemble import build_data_set
from ssl_dc.config import Layer, resolve
from ssl_dc.data.base import Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.evaluation.linear import linear_on
from ssl_dc.evaluation.options import TransferOptions
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.model import Model

PREPARATION = {"image_size", "mean", "std"}
"""Options of data sets that a transfer takes from the model."""


def transfer(model: Model, options: TransferOptions) -> Evaluation:
    """Run the protocol ``transfer``; the model's own data set is not opened.

    Raises:
        ConfigError: As :func:`ssl_dc.evaluation.linear.linear`, or if there is no such data set or option.
        DataError: If the data set's images cannot be opened or have no labels.
    """
    splits = target_splits(options.to, root=options.to_root, limit=options.to_limit, settings=options.to_set)
    scored = linear_on(model, splits, options)
    where = {} if options.to_root is None else {"to_root": str(options.to_root)}
    return replace(scored, protocol="transfer", settings={"to": options.to, **where, **scored.settings})


def target_splits(
    name: str, *, root: Path | None = None, limit: int | None = None, settings: Mapping[str, Any] | None = None
) -> Splits:
    """Open the data set that is transferred to.

    Args:
        name: The data set, by the name under which it is registered.
        root: Folder that holds it.
        limit: Use only this many training images, the same number of each class.
        settings: Other options of the data set, such as ``{"image_column": "img"}``.

    Raises:
        ConfigError: If there is no such data set, it has no such option, or the option is the model's to choose.
        DataError: If its images are not there or cannot be used.
    """
    for key in PREPARATION & set(settings or {}):
        raise ConfigError(f"--to-set {key}: images are always brought to the model's own size and normalisation")
    values = {f"data.{key}": value for key, value in (settings or {}).items()}
    sources = {key: f"--to-set {key.removeprefix('data.')}" for key in values}
    for key, value, flag in (("root", root, "--to-root"), ("limit", limit, "--to-limit"), ("name", name, "--to")):
        if value is not None:
            values[f"data.{key}"] = str(value) if isinstance(value, Path) else value
            sources[f"data.{key}"] = flag
    data_set = build_data_set(resolve([Layer(values, sources)]).config)
    try:
        return open_splits(data_set)
    except DataError as error:
        # Data sets name the options of training in their messages; here those have other names.
        message = str(error).replace("--data-root", "--to-root").replace("--download", "--to-set download=true")
        raise DataError(f"transfer to {name}: {message}") from error
