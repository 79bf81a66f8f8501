"""Transfer: the images of another data set, for an encoder that was trained elsewhere.

What makes it a transfer is the model, which takes the other images as it took its own: at the size and with the
normalisation that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_dc.assemble import build
from ssl_dc.data.base import DataSet, Splits
from ssl_dc.data.subsets import open_splits
from ssl_dc.errors import DataError
from ssl_dc.evaluation.linear import linear_on
from ssl_dc.evaluation.options import TransferOptions
from ssl_dc.evaluation.other_data import other_data, told_by
from ssl_dc.evaluation.scores import Evaluation
from ssl_dc.model import Model


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
    """Open the data set that is transferred to; the arguments are those of :func:`ssl_dc.evaluation.other_data.other_data`.

    Raises:
        ConfigError: If there is no such data set, it has no such option, or the option is the model's to decide.
        DataError: If its images are not there or cannot be used.
    """
    target = other_data("--to", name, root=root, limit=limit, settings=settings)
    try:
        with told_by("--to"):
            return open_splits(build("data", target, DataSet))
    except DataError as error:
        raise DataError(f"transfer to {name}: {error}") from error
