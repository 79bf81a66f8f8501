"""Settings of trainings that take a second, and what is made of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_dc.config import RunConfig, resolve, uniform_layer

TINY: dict[str, Any] = {
    "data.limit": 64,
    "data.test_limit": 40,
    "data.image_size": 8,
    "backbone.width": 4,
    "objective.expander_width": 16,
    "training.batch_size": 16,
    "training.epochs": 2,
    "training.workers": 0,
    "training.log_every": 1,
}
"""Two epochs of four steps, on digits."""

TWO_BY_TWO: dict[str, Any] = {**TINY, "data.limit": 32}
"""Two epochs of two steps."""

SHORT: dict[str, Any] = {**TINY, "data.limit": 32, "training.epochs": 1}
"""One epoch of two steps."""


def config_of(settings: Mapping[str, Any]) -> RunConfig:
    """The complete config that the settings make with the defaults and recipes."""
    return resolve([uniform_layer(settings, "test")]).config


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """The settings as options of the command line."""
    return [f"--{key}={value}" for key, value in settings.items()]
