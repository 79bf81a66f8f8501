"""The options of the evaluation protocols, and their check; nothing here imports torch.

Each option of a protocol is an option of ``ssl-dc evaluate``, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, ValidationError, field_validator

from ssl_dc.config.messages import readable_options
from ssl_dc.errors import ConfigError, PluginError
from ssl_dc.plugins.options import ProtocolOptions
from ssl_dc.plugins.registry import registry

OUTPUT = "output"
"""The option that says where a picture goes; every protocol with a picture has it."""


class KNNOptions(ProtocolOptions):
    """Options of the protocol ``knn``."""

    name: str = "knn"
    k: int = Field(1, ge=1, description="How many neighbours vote.")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="How distance is measured.")


class FewLabelsOptions(ProtocolOptions):
    """Options of the protocols that may learn from a share of the labels."""

    label_share: float | None = Field(
        None, gt=0, le=1, description="Learn from this share of the labelled training images, the same of each class."
    )
    label_seed: int = Field(0, ge=0, description="With label-share: seed of the draw of these images.")


class LinearOptions(FewLabelsOptions):
    """Options of the protocol ``linear``."""

    name: str = "linear"
    seeds: int = Field(5, ge=1, description="Classifiers trained on each route.")
    epochs: int = Field(100, ge=1, description="Passes over the training images.")
    augment: bool = Field(
        False,
        description="Show the encoder new random crops and flips in each epoch, as in the paper. Otherwise features are"
        " computed once.",
    )
    crop_scale: tuple[float, float] | None = Field(
        None, description="With augment: smallest and largest share of an image that a crop shows. Not set, 0.08 and 1."
    )

    @field_validator("crop_scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError("must be two shares with 0 < smallest <= largest <= 1")
        return scale


class FinetuneOptions(FewLabelsOptions):
    """Options of the protocol ``finetune``."""

    name: str = "finetune"
    seeds: int = Field(1, ge=1, description="Fine-tunings of each route.")
    epochs: int = Field(30, ge=1, description="Passes over the labelled training images.")
    lr: float = Field(0.03, gt=0, description="Peak learning rate of the network.")
    head_lr: float = Field(0.1, gt=0, description="Peak learning rate of the linear layer on top.")
    batch_size: int = Field(128, ge=2, description="Images a step.")
    scratch: bool = Field(False, description="Start from drawn weights, to see what pre-training is worth.")


class TransferOptions(LinearOptions):
    """Options of the protocol ``transfer``."""

    opens_own_data: ClassVar[bool] = False

    name: str = "transfer"
    to: str = Field(description="The other data set.")
    to_root: Path | None = Field(None, description="Folder that holds it.")
    to_limit: int | None = Field(
        None, ge=2, description="How many of its training images are used, the same number of each class."
    )
    to_set: dict[str, Any] | None = Field(None, description="Its other options, such as image_column=img.")


class ProjectionOptions(ProtocolOptions):
    """Options of the protocols that lay features out in the plane."""

    picture: ClassVar[Literal["never", "asked", "always"]] = "always"

    points: int = Field(2000, ge=10, description="How many images are drawn, at most.")


class UMAPOptions(ProjectionOptions):
    """Options of the protocol ``umap``."""

    name: str = "umap"


class TSNEOptions(ProjectionOptions):
    """Options of the protocol ``tsne``."""

    name: str = "tsne"


class GatesOptions(ProtocolOptions):
    """The protocol ``gates`` has no options."""

    picture: ClassVar[Literal["never", "asked", "always"]] = "asked"

    name: str = "gates"


class CurveOptions(ProtocolOptions):
    """Options of the protocol ``curve``."""

    picture: ClassVar[Literal["never", "asked", "always"]] = "asked"

    name: str = "curve"
    seeds: int = Field(1, ge=1, description="Linear classifiers trained on each point.")
    epochs: int = Field(100, ge=1, description="Passes of a linear classifier over the training images.")
    time: bool = Field(False, description="Also measure milliseconds an image on this machine's CPU, by the executor.")
    seconds: float = Field(10.0, gt=0, le=3600, description="With time: how long each run is measured.")
    beside: list[Path] | None = Field(
        None, description="Another run, shown in the same table and picture; may be repeated."
    )


def flag_of(option: str) -> str:
    """An option as the command line spells it."""
    return "--" + option.replace("_", "-")


def protocol_options(
    name: str, given: Mapping[str, Any], *, drawn: bool = False, spelt: Callable[[str], str] = flag_of
) -> ProtocolOptions:
    """Check the options of a protocol, before anything is loaded or computed.

    Args:
        name: The protocol.
        given: The options that the caller sets.
        drawn: Whether a picture is asked for.
        spelt: How the caller spells an option, for messages; by default as the command line does.

    Raises:
        ConfigError: If there is no such protocol, if an option is missing or has a wrong value, or if it belongs to another
            protocol, which the message names.
    """
    model = options_model(name)
    for option in [*given, *([OUTPUT] if drawn else [])]:
        if not _accepts(model, option):
            raise ConfigError(not_an_option(name, option, spelt))
    for option, field in model.model_fields.items():
        if field.is_required() and option not in given:
            raise ConfigError(f"protocol {name} needs {spelt(option)}")
    try:
        options = registry().find("protocol", name).options(given)
    except ValidationError as error:
        raise ConfigError(readable_options(error, model, flag=spelt)) from error
    return cast(ProtocolOptions, options.model_copy(update={"name": name}))


def options_model(name: str) -> type[ProtocolOptions]:
    """The model of a protocol's options.

    Raises:
        PluginError: If there is no such protocol, or its options are not :class:`ssl_dc.ProtocolOptions`.
    """
    model = registry().find("protocol", name).options_model()
    if not issubclass(model, ProtocolOptions):
        raise PluginError(f"evaluation protocol {name!r}: its options are not a subclass of ssl_dc.ProtocolOptions")
    return model


def not_an_option(name: str, option: str, spelt: Callable[[str], str] = flag_of) -> str:
    """The message for an option that a protocol does not have: which protocol has it, and which options there are."""
    owners = [other for other in registry().names("protocol") if _accepts(options_model(other), option)]
    belongs = f"belongs to protocol {_listed(owners)}, not to {name}" if owners else "belongs to no protocol"
    model = options_model(name)
    mine = [*_own(model), *([OUTPUT] if model.picture != "never" else [])]
    return f"{spelt(option)} {belongs}; {name} takes {_listed(map(spelt, mine)) or 'no options'}"


def _accepts(model: type[ProtocolOptions], option: str) -> bool:
    return option in _own(model) or (option == OUTPUT and model.picture != "never")


def _own(model: type[ProtocolOptions]) -> Collection[str]:
    return [option for option in model.model_fields if option != "name"]


def _listed(names: Iterable[str]) -> str:
    *first, last = list(names) or [""]
    return f"{', '.join(first)} or {last}" if first else last
