"""Self-supervised pre-training of one encoder that is a dense and a gated network at once.

The face of the library. Names are imported when first used, so that ``import ssl_dc`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_dc.api import Run, evaluate, load, resume, train
    from ssl_dc.backbones.base import Backbone
    from ssl_dc.config import RunConfig
    from ssl_dc.data.base import DataSet
    from ssl_dc.data.options import DataOptions
    from ssl_dc.encoders.base import Encoder
    from ssl_dc.errors import ConfigError, DataError, PluginError, RunError, SslDcError
    from ssl_dc.gating.base import Gate, GatingScheme
    from ssl_dc.gating.cost import CostModel, Trace
    from ssl_dc.gating.sites import GateSite
    from ssl_dc.hookspecs import hookimpl
    from ssl_dc.model import Model
    from ssl_dc.norms.base import NormPolicy, RouteNorm
    from ssl_dc.objectives.base import Objective, ObjectiveOutput
    from ssl_dc.optimizers.base import ParameterGroup
    from ssl_dc.parts import Part, PartOptions
    from ssl_dc.routes import Route
    from ssl_dc.views.base import Views

_HOME = {
    "Backbone": "ssl_dc.backbones.base",
    "ConfigError": "ssl_dc.errors",
    "CostModel": "ssl_dc.gating.cost",
    "DataError": "ssl_dc.errors",
    "DataOptions": "ssl_dc.data.options",
    "DataSet": "ssl_dc.data.base",
    "Encoder": "ssl_dc.encoders.base",
    "Gate": "ssl_dc.gating.base",
    "GateSite": "ssl_dc.gating.sites",
    "GatingScheme": "ssl_dc.gating.base",
    "Model": "ssl_dc.model",
    "NormPolicy": "ssl_dc.norms.base",
    "Objective": "ssl_dc.objectives.base",
    "ObjectiveOutput": "ssl_dc.objectives.base",
    "ParameterGroup": "ssl_dc.optimizers.base",
    "Part": "ssl_dc.parts",
    "PartOptions": "ssl_dc.parts",
    "PluginError": "ssl_dc.errors",
    "Route": "ssl_dc.routes",
    "RouteNorm": "ssl_dc.norms.base",
    "Run": "ssl_dc.api",
    "RunConfig": "ssl_dc.config",
    "RunError": "ssl_dc.errors",
    "SslDcError": "ssl_dc.errors",
    "Trace": "ssl_dc.gating.cost",
    "Views": "ssl_dc.views.base",
    "evaluate": "ssl_dc.api",
    "hookimpl": "ssl_dc.hookspecs",
    "load": "ssl_dc.api",
    "resume": "ssl_dc.api",
    "train": "ssl_dc.api",
}

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "ConfigError",
    "CostModel",
    "DataError",
    "DataOptions",
    "DataSet",
    "Encoder",
    "Gate",
    "GateSite",
    "GatingScheme",
    "Model",
    "NormPolicy",
    "Objective",
    "ObjectiveOutput",
    "ParameterGroup",
    "Part",
    "PartOptions",
    "PluginError",
    "Route",
    "RouteNorm",
    "Run",
    "RunConfig",
    "RunError",
    "SslDcError",
    "Trace",
    "Views",
    "evaluate",
    "hookimpl",
    "load",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssl_dc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
