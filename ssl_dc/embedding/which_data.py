"""Which data set is embedded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_dc.config import RunConfig, with_data
from ssl_dc.data.parquet_files import holds_parquet
from ssl_dc.data.webdataset import holds_tars
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.other_data import other_data, refuse_preparation
from ssl_dc.plugins.options import DataOptions
from ssl_dc.plugins.registry import registry
from ssl_dc.printable import name_of

_SAVED_BY_DATASETS = ("state.json", "dataset_dict.json")
"""Files of a folder that ``datasets.Dataset.save_to_disk`` or ``datasets.DatasetDict.save_to_disk`` wrote."""


def embedded_data(
    config: RunConfig, data: str | Path | None, root: str | Path | None, settings: Mapping[str, Any] | None
) -> DataOptions:
    """The options of a data set to embed.

    Args:
        config: The run's config.
        data: Its name, or where it is; None for the run's own.
        root: Folder that holds one that is named.
        settings: Its other options. Unless they say otherwise, nothing is held out of a data set that is not the run's own.

    Raises:
        ConfigError: If there is no such data set, or it has no such option.
    """
    if data is None:
        refuse_preparation("--data", settings or {})
        return with_data(config, "--data-set", **(settings or {})).data
    name, where = str(data), None if root is None else Path(root)
    if not registry().has("data", name):
        if where is not None:
            raise ConfigError(f"--data-root belongs to a data set that is named, and {name_of(name)} is a place")
        where = Path(data)
        name = _kind_of(where)
    whole = dict(settings or {})
    if "hold_out" in registry().find("data", name).options_model().model_fields:
        whole.setdefault("hold_out", 0)
    return other_data("--data", name, root=where, settings=whole)


def _kind_of(place: Path) -> str:
    """The name of the data set that reads what is there.

    Raises:
        ConfigError: If nothing is there.
    """
    if not place.exists():
        names = ", ".join(registry().names("data"))
        raise ConfigError(
            f"data {name_of(str(place))}: there is no such file or folder, and no data set of that name; there are {names}"
        )
    if place.is_dir() and any((place / name).is_file() for name in _SAVED_BY_DATASETS):
        return "arrow"
    if holds_tars(place):
        return "webdataset"
    return "parquet" if holds_parquet(place) else "folder"
