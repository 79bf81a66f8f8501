"""Other images than those of a run's own data set: where they are, and how a model takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssl_dc.config import Layer, RunConfig, resolve, with_data
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.model import Model
from ssl_dc.plugins.options import DataOptions

PREPARATION = ("image_size", "mean", "std")
"""Options of data sets that the model decides: it takes every image as it took those that it was trained on."""


def other_data(
    flag: str,
    name: str,
    *,
    root: Path | None = None,
    limit: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DataOptions:
    """The options of another data set.

    Args:
        flag: The option that names it, such as ``--to``, for messages; its root is then said by ``--to-root``, and so on.
        name: The data set, by the name under which it is registered.
        root: Folder that holds it.
        limit: Use only this many training images, the same number of each class.
        settings: Its other options, such as ``{"image_column": "img"}``.

    Raises:
        ConfigError: If there is no such data set, it has no such option, or the option is the model's to decide.
    """
    refuse_preparation(flag, settings or {})
    values = {f"data.{key}": value for key, value in (settings or {}).items()}
    sources = {key: f"{flag}-set {key.removeprefix('data.')}" for key in values}
    root_text = None if root is None else str(root)
    for key, value, said in (("root", root_text, "-root"), ("limit", limit, "-limit"), ("name", name, "")):
        if value is not None:
            values[f"data.{key}"] = value
            sources[f"data.{key}"] = f"{flag}{said}"
    return resolve([Layer(values, sources)]).config.data


def evaluation_data(
    data_root: str | Path | None,
    eval_data: str | None,
    eval_data_root: str | Path | None,
    eval_data_set: Mapping[str, Any] | None,
    *,
    calibrates: bool = False,
) -> DataOptions | None:
    """The options of the data set that a call evaluates on; None for the run's own.

    Args:
        data_root: What ``--data-root`` says: where the run's own data is.
        eval_data: The other data set, by its name.
        eval_data_root: Folder that holds it.
        eval_data_set: Its other options.
        calibrates: Whether the run's own images are opened as well, to calibrate its gates on.

    Raises:
        ConfigError: If these do not go together, or there is no such data set or option.
    """
    if eval_data is None:
        if eval_data_root is not None or eval_data_set:
            raise ConfigError("--eval-data-root and --eval-data-set belong to --eval-data: name the data set as well")
        return None
    if data_root is not None and not calibrates:
        raise ConfigError(
            "--data-root says where the run's own data is, which --eval-data leaves unopened; give one of them"
        )
    root = None if eval_data_root is None else Path(eval_data_root)
    return other_data("--eval-data", eval_data, root=root, settings=eval_data_set)


def refuse_preparation(flag: str, settings: Mapping[str, Any]) -> None:
    """Refuse options that are the model's to decide.

    Args:
        flag: As of :func:`other_data`.
        settings: The options.

    Raises:
        ConfigError: If there is one.
    """
    for key in settings:
        if key in PREPARATION:
            raise ConfigError(f"{flag}-set {key}: images are always brought to the model's own size and normalisation")


def moved_data(model: Model, root: str | Path | None) -> Model:
    """The same model, with its data set at another place.

    Args:
        model: The model; it is not changed.
        root: Where the data is now; None if it has not moved.

    Raises:
        ConfigError: If the data set has no root.
    """
    config = with_data(model.config, "--data-root", root=None if root is None else str(root))
    return _with_config(model, config, config)


def on_other_data(model: Model, data: DataOptions) -> Model:
    """The same model with another data set in its config, whose images it takes as it took its own.

    Args:
        model: The model; it is not changed.
        data: The options of the other data set.
    """
    own = {key: getattr(model.config.data, key) for key in PREPARATION}
    config = model.config.model_copy(update={"data": data.model_copy(update=own)})
    return _with_config(model, config, model.trained_config)


def of_other_data(model: Model) -> str:
    """Which other data set the model is evaluated on, in words; empty if it is its own."""
    return "" if model.config is model.trained_config else f" of {model.config.data.name}"


def _with_config(model: Model, config: RunConfig, trained: RunConfig) -> Model:
    other = Model(config, model.encoder, model.cost)
    other.gated_routes = model.gated_routes
    other.trained_config = trained
    return other


@contextmanager
def told_by(flag: str) -> Iterator[None]:
    """Name options in errors as this call has them: data sets name those of training.

    Args:
        flag: As of :func:`other_data`.

    Raises:
        DataError: If the block raises one.
    """
    try:
        yield
    except DataError as error:
        message = (
            str(error)
            .replace(" or data.root", "")
            .replace("--data-root", f"{flag}-root")
            .replace("--download", f"{flag}-set download=true")
        )
        raise DataError(message) from error
