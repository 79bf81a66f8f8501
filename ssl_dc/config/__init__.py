"""The configuration of a run: its schema, and how recipes, files and options make it up."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from ssl_dc.config.layers import (
    Layer,
    file_layer,
    flattened,
    merged,
    nested,
    normalised,
    override_layer,
    stacked,
    uniform_layer,
)
from ssl_dc.config.messages import readable
from ssl_dc.config.renamed import by_new_names
from ssl_dc.config.schema import MAY_BE_ABSENT, BudgetConfig, RunConfig, TrainingConfig, absent_parts
from ssl_dc.errors import ConfigError, OldNameWarning
from ssl_dc.plugins.installed import check_installed
from ssl_dc.plugins.kinds import config_sections, default_part
from ssl_dc.plugins.registry import registry

__all__ = [
    "BudgetConfig",
    "Layer",
    "Recipe",
    "Resolved",
    "RunConfig",
    "TrainingConfig",
    "file_layer",
    "override_layer",
    "resolve",
    "uniform_layer",
    "with_data",
    "with_settings",
]


RECIPE = "recipe"
"""The key that asks for a kind of recipe. It decides other settings, and is itself not part of a complete config."""

Recipe = Literal["fitted", "paper"]
"""``fitted`` is chosen for the pictures and the machine; ``paper`` is the fixed recipe that the data set brings."""


@dataclass(frozen=True)
class Resolved:
    """A complete config, and where each of its settings comes from.

    Attributes:
        config: The config.
        provenance: The source of every setting, by dotted key.
        recipe: The kind of recipe that the user asks for, if any.
    """

    config: RunConfig
    provenance: Mapping[str, str]
    recipe: Recipe | None = None


def resolve(
    layers: Sequence[Layer] = (),
    *,
    unnamed_data_recipe: bool = True,
    data_recipe: Layer | None = None,
    may_be_absent: Collection[str] = (),
) -> Resolved:
    """The complete config of a call: defaults, then the recipes of the chosen parts, then the layers in order.

    Args:
        layers: What the user says, from the weakest (a file) to the strongest (``--set``).
        unnamed_data_recipe: Whether the recipe of the default data set counts when no data set is named. It does not where
            only the network matters.
        data_recipe: Settings in place of the recipe of the data set.
        may_be_absent: Kinds of part that need not be installed.

    Raises:
        ConfigError: If the config is not valid. The message names every error.
        PluginError: If ssl-dc is not installed, so that there are no parts.
    """
    check_installed()
    everything = merged([by_new_names(normalised(layer)) for layer in layers])
    said, recipe = _without_recipe(everything)
    without_data = not unnamed_data_recipe and "data.name" not in said.values
    kinds = [kind for kind in config_sections() if not (kind == "data" and without_data)]
    whole = stacked([*_recipes(said, kinds, data_recipe), said])
    try:
        config = RunConfig.model_validate(nested(whole.values), context={MAY_BE_ABSENT: may_be_absent})
    except ValidationError as error:
        raise ConfigError(readable(error, whole.values, whole.sources)) from error
    provenance = {key: whole.sources.get(key, "default") for key in flattened(config.model_dump(mode="json"))}
    return Resolved(config, provenance, recipe)


def with_data(config: RunConfig, source: str, **options: Any) -> RunConfig:
    """The config with other options of its data set.

    Args:
        config: The config.
        source: Where the options come from, for messages.
        **options: The options; those that are None stay as they are.

    Raises:
        ConfigError: If one is not valid.
    """
    return with_settings(config, source, {f"data.{name}": value for name, value in options.items() if value is not None})


def with_settings(config: RunConfig, source: str, settings: Mapping[str, Any]) -> RunConfig:
    """The config with other settings.

    Args:
        config: The config.
        source: Where the settings come from, for messages.
        settings: Values by dotted key.

    Raises:
        ConfigError: If one is not valid.
    """
    if not settings:
        return config
    whole = flattened(config.model_dump(mode="json"))
    layers = [uniform_layer(whole, "the run"), uniform_layer(settings, source)]
    return resolve(layers, may_be_absent=absent_parts(config)).config


def dump(config: RunConfig) -> str:
    """The config as JSON, which reads back as an equal config."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def read(path: Path) -> RunConfig:
    """The config that a file holds.

    Raises:
        ConfigError: If it cannot be read or is not valid.
    """
    return resolve([file_layer(path)]).config


def read_complete(path: Path, may_be_absent: Collection[str] = ()) -> RunConfig:
    """The config that a run was made with. It must name every section, so that no default of today fills a gap.

    Old names of settings are read for good, without a warning.

    Args:
        path: The file.
        may_be_absent: Kinds of part that need not be installed.

    Raises:
        ConfigError: If it cannot be read, is not valid, or lacks a whole section.
    """
    check_installed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldNameWarning)
        layer = by_new_names(file_layer(path))
    said = {key.partition(".")[0] for key in layer.values}
    missing = [section for section in RunConfig.model_fields if section not in said]
    if missing:
        raise ConfigError(f"{path} is not the complete config of a run; it lacks: {', '.join(missing)}")
    try:
        context = {MAY_BE_ABSENT: may_be_absent}
        return RunConfig.model_validate(nested(layer.values), context=context)  # no recipe of today fills a gap either
    except ValidationError as error:
        text = readable(error, layer.values, layer.sources)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from error


def _without_recipe(said: Layer) -> tuple[Layer, Recipe | None]:
    """What the user says of settings, and the kind of recipe that the user asks for.

    Raises:
        ConfigError: If there is no such kind.
    """
    if RECIPE not in said.values:
        return said, None
    recipe = said.values[RECIPE]
    if recipe not in get_args(Recipe):
        allowed = " or ".join(map(repr, get_args(Recipe)))
        raise ConfigError(f"{said.sources[RECIPE]}: {RECIPE} = {recipe!r}: there is no such recipe; allowed: {allowed}")
    kept = {key: value for key, value in said.values.items() if key != RECIPE}
    return Layer(kept, {key: said.sources[key] for key in kept}), recipe


def _recipes(said: Layer, kinds: Iterable[str], data_recipe: Layer | None) -> Iterable[Layer]:
    """The recipes of the chosen parts of some kinds, the data set's first, as far as they fit the other chosen parts.

    A part that does not exist has no recipe; validation reports it.
    """
    chosen: dict[str, Any] = {}
    for kind in sorted(kinds, key=lambda kind: kind != "data"):
        name = said.values.get(f"{kind}.name", chosen.get(f"{kind}.name", default_part(kind)))
        if registry().has(kind, name):
            recipe = uniform_layer(registry().find(kind, name).options_model().recipe, f"recipe of {name}")
            if kind == "data" and data_recipe is not None:
                recipe = data_recipe
            fitting = {key: value for key, value in recipe.values.items() if _fits(key, recipe.values, said)}
            chosen.update(fitting)
            yield Layer(fitting, {key: recipe.sources[key] for key in fitting})


def _fits(key: str, recipe: Mapping[str, Any], said: Layer) -> bool:
    """Whether a setting of a recipe applies to the parts that the user chose."""
    kind, _, option = key.partition(".")
    if kind not in config_sections() or option == "name":
        return True
    meant = recipe.get(f"{kind}.name", default_part(kind))
    chosen = said.values.get(f"{kind}.name", meant)
    if f"{kind}.name" in recipe and chosen != meant:
        return False
    return registry().has(kind, chosen) and option in registry().find(kind, chosen).options_model().model_fields
