"""Self-supervised pre-training of one encoder that is a dense and a gated network at once.

The face of the library. Names are imported when first used, so that ``import ssl_dc`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssl_dc.api import Run, evaluate, load, resume, run_protocol, train
    from ssl_dc.assemble import build_data_set
    from ssl_dc.backbones.base import Backbone, GatePoint
    from ssl_dc.config import BudgetConfig, RunConfig, TrainingConfig
    from ssl_dc.data.base import DataSet, ImageSet, Splits
    from ssl_dc.data.subsets import open_splits
    from ssl_dc.distributed import gather_batch
    from ssl_dc.encoders.base import Encoded, Encoder
    from ssl_dc.errors import ConfigError, DataError, PluginError, RunError, SslDcError
    from ssl_dc.evaluation.report import Report, ReportTable
    from ssl_dc.gating.base import Gate, GatingScheme, PooledRule
    from ssl_dc.gating.cost import CostModel, LayerCost, Trace
    from ssl_dc.gating.sites import GateSite, Granularity
    from ssl_dc.model import Model
    from ssl_dc.norms.base import NormPolicy, Position, RouteNorm
    from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
    from ssl_dc.objectives.heads import GlobalBatchNorm1d
    from ssl_dc.optimizers.base import ParameterGroup
    from ssl_dc.plugins.hookspecs import hookimpl
    from ssl_dc.plugins.options import DataOptions, GatingOptions, OptimizerOptions, PartOptions, ProtocolOptions
    from ssl_dc.plugins.parts import Part
    from ssl_dc.routes import Route
    from ssl_dc.trackers.base import StepMetrics, Watcher
    from ssl_dc.training.trainer import Trainer
    from ssl_dc.views.base import Views

_HOME = {
    "Backbone": "ssl_dc.backbones.base",
    "BudgetConfig": "ssl_dc.config",
    "ConfigError": "ssl_dc.errors",
    "CostModel": "ssl_dc.gating.cost",
    "DataError": "ssl_dc.errors",
    "DataOptions": "ssl_dc.plugins.options",
    "DataSet": "ssl_dc.data.base",
    "Encoded": "ssl_dc.encoders.base",
    "EncodedViews": "ssl_dc.objectives.base",
    "Encoder": "ssl_dc.encoders.base",
    "Gate": "ssl_dc.gating.base",
    "GatePoint": "ssl_dc.backbones.base",
    "GateSite": "ssl_dc.gating.sites",
    "GatingOptions": "ssl_dc.plugins.options",
    "GatingScheme": "ssl_dc.gating.base",
    "GlobalBatchNorm1d": "ssl_dc.objectives.heads",
    "Granularity": "ssl_dc.gating.sites",
    "ImageSet": "ssl_dc.data.base",
    "LayerCost": "ssl_dc.gating.cost",
    "Model": "ssl_dc.model",
    "NormPolicy": "ssl_dc.norms.base",
    "Objective": "ssl_dc.objectives.base",
    "ObjectiveOutput": "ssl_dc.objectives.base",
    "OptimizerOptions": "ssl_dc.plugins.options",
    "ParameterGroup": "ssl_dc.optimizers.base",
    "Part": "ssl_dc.plugins.parts",
    "PartOptions": "ssl_dc.plugins.options",
    "PluginError": "ssl_dc.errors",
    "PooledRule": "ssl_dc.gating.base",
    "Position": "ssl_dc.norms.base",
    "ProtocolOptions": "ssl_dc.plugins.options",
    "Report": "ssl_dc.evaluation.report",
    "ReportTable": "ssl_dc.evaluation.report",
    "Route": "ssl_dc.routes",
    "RouteNorm": "ssl_dc.norms.base",
    "Run": "ssl_dc.api",
    "RunConfig": "ssl_dc.config",
    "RunError": "ssl_dc.errors",
    "Splits": "ssl_dc.data.base",
    "SslDcError": "ssl_dc.errors",
    "StepMetrics": "ssl_dc.trackers.base",
    "Trace": "ssl_dc.gating.cost",
    "Trainer": "ssl_dc.training.trainer",
    "TrainingConfig": "ssl_dc.config",
    "Views": "ssl_dc.views.base",
    "Watcher": "ssl_dc.trackers.base",
    "build_data_set": "ssl_dc.assemble",
    "evaluate": "ssl_dc.api",
    "gather_batch": "ssl_dc.distributed",
    "hookimpl": "ssl_dc.plugins.hookspecs",
    "load": "ssl_dc.api",
    "open_splits": "ssl_dc.data.subsets",
    "resume": "ssl_dc.api",
    "run_protocol": "ssl_dc.api",
    "train": "ssl_dc.api",
}

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "BudgetConfig",
    "ConfigError",
    "CostModel",
    "DataError",
    "DataOptions",
    "DataSet",
    "Encoded",
    "EncodedViews",
    "Encoder",
    "Gate",
    "GatePoint",
    "GateSite",
    "GatingOptions",
    "GatingScheme",
    "GlobalBatchNorm1d",
    "Granularity",
    "ImageSet",
    "LayerCost",
    "Model",
    "NormPolicy",
    "Objective",
    "ObjectiveOutput",
    "OptimizerOptions",
    "ParameterGroup",
    "Part",
    "PartOptions",
    "PluginError",
    "PooledRule",
    "Position",
    "ProtocolOptions",
    "Report",
    "ReportTable",
    "Route",
    "RouteNorm",
    "Run",
    "RunConfig",
    "RunError",
    "Splits",
    "SslDcError",
    "StepMetrics",
    "Trace",
    "Trainer",
    "TrainingConfig",
    "Views",
    "Watcher",
    "build_data_set",
    "evaluate",
    "gather_batch",
    "hookimpl",
    "load",
    "open_splits",
    "resume",
    "run_protocol",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssl_dc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
