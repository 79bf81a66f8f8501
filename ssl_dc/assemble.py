"""From a config to the objects it names: the one place that looks parts up and builds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from ssl_dc.backbones.base import Backbone
from ssl_dc.config import RunConfig
from ssl_dc.data.base import DataSet
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError
from ssl_dc.gating.base import GateFactory, GatingScheme
from ssl_dc.objectives.base import Objective
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.options import PartOptions
from ssl_dc.plugins import registry
from ssl_dc.routes import Route
from ssl_dc.seeds import seed_everything
from ssl_dc.views.base import Views

_INITIALISATION = 0
"""Key of the seed that weights are drawn with, beside the run's seed."""


def part(kind: str, options: PartOptions) -> Any:
    """The class (or function) that a section of the config names."""
    return registry().find(kind, options.name).target()


@dataclass(frozen=True)
class Network:
    """The encoder of a config, and the scheme that its gates come from."""

    encoder: Encoder
    gating: GatingScheme


def build_network(config: RunConfig) -> Network:
    """The untrained encoder, its weights drawn by the config's seed.

    Raises:
        ConfigError: If the gating scheme finds no gate site of its kind in the backbone, or the budget is below what the
            network costs with every gate shut.
    """
    seed_everything(config.seed, _INITIALISATION)
    gating = part("gating", config.gating)(config.gating)
    norms = part("norm", config.norm)(config.norm)
    backbone_class = part("backbone", config.backbone)

    def make_backbone(gate_factory: GateFactory) -> Backbone:
        backbone: Backbone = backbone_class(config.backbone, norms.layer, gate_factory)
        return backbone

    encoder = part("encoder", config.encoder)(config.encoder, make_backbone, gating)
    network = Network(encoder, gating)
    _check_sites(config, network)
    _check_budget(config, network)
    return network


def build_objective(config: RunConfig, feature_dim: int) -> Objective:
    """The objective with its heads, their weights drawn after the encoder's."""
    objective: Objective = part("objective", config.objective)(config.objective, feature_dim)
    return objective


def build_data_set(config: RunConfig) -> DataSet:
    """The data set, not yet opened."""
    data_set: DataSet = part("data", config.data)(config.data)
    return data_set


def build_views(config: RunConfig) -> Views:
    """The augmentation recipe, for the size and normalisation of the data."""
    data = config.data
    views: Views = part("views", config.views)(config.views, data.image_size, data.mean, data.std)
    return views


def build_optimizer(config: RunConfig, groups: Sequence[ParameterGroup]) -> Optimizer:
    """The optimiser over some parameters."""
    optimizer: Optimizer = part("optimizer", config.optimizer)(config.optimizer, groups, peak_lr(config))
    return optimizer


def peak_lr(config: RunConfig) -> float:
    """Peak learning rate: ``optimizer.lr``, scaled to the global batch where the config says so."""
    if config.optimizer.lr_scaling == "none":
        return config.optimizer.lr
    return config.optimizer.lr * config.training.batch_size / 256


def _check_sites(config: RunConfig, network: Network) -> None:
    granularity = network.gating.granularity
    points = network.encoder.backbone(Route.GATED).gate_points()
    if granularity is None or any(point.gate is not None for point in points):
        return
    has = sorted({str(point.site.granularity) for point in points})
    raise ConfigError(
        f"gating {config.gating.name!r} acts on {granularity} sites, of which backbone {config.backbone.name!r} has none"
        f" (it has: {', '.join(has) or 'no gate sites at all'})"
    )


def _check_budget(config: RunConfig, network: Network) -> None:
    if config.budget.target is None:
        return
    floor = network.encoder.cost_model(config.data.image_size).floor_ratio
    if config.budget.target < floor:
        raise ConfigError(
            f"budget.target = {config.budget.target:g}: below what {config.backbone.name} at {config.data.image_size} px"
            f" costs with every gate shut; allowed: {floor:.5f} to 1"
        )
