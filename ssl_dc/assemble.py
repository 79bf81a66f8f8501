"""From a config to the objects that it names. Parts are looked up and built here only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch.optim import Optimizer

from ssl_dc.backbones.base import Backbone
from ssl_dc.config import RunConfig
from ssl_dc.data.base import DataSet
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, PluginError, SslDcError, Terminated
from ssl_dc.gating.base import GateFactory, GatingScheme, set_budgets
from ssl_dc.gating.cost import CostModel
from ssl_dc.named_parts import NamedParts
from ssl_dc.norms.base import NormPolicy
from ssl_dc.objectives.base import Objective
from ssl_dc.optimizers.base import ParameterGroup
from ssl_dc.plugins.discovery import BUILT_IN
from ssl_dc.plugins.kinds import KINDS
from ssl_dc.plugins.options import PartOptions
from ssl_dc.plugins.registry import Registered, registry
from ssl_dc.routes import Route
from ssl_dc.seeds import seed_everything
from ssl_dc.views.base import Views, check_local_views

T = TypeVar("T")

_INITIALISATION = 0
"""Together with the run's seed, the key of the seed that weights are drawn from."""


def build(kind: str, options: PartOptions, base: type[T], *arguments: Any) -> T:
    """Build the part that a section of a config names.

    Args:
        kind: The kind of part.
        options: The section.
        base: The class that every part of the kind is an instance of.
        *arguments: Further arguments of parts of this kind, after their options (:mod:`ssl_dc.plugins.kinds`).

    Raises:
        PluginError: If a plugin's part cannot be built, or is not an instance of ``base``.
    """
    registered = registry().find(kind, options.name)
    try:
        made = registered.target()(options, *arguments)
    except (Exception, SystemExit) as error:  # a part that calls sys.exit would end the command as if all were well
        if isinstance(error, SslDcError | Terminated) or registered.distribution == BUILT_IN:
            raise
        raise PluginError(f"{registered} could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(made, base):
        raise PluginError(f"{registered} must be a {base.__name__}, not a {type(made).__name__}")
    return made


@dataclass(frozen=True)
class Network:
    """The network of a config.

    Attributes:
        encoder: The encoder.
        gating: The scheme that its gates come from.
        cost: What the encoder costs at the config's image size. It is counted once, here, and handed on.
    """

    encoder: Encoder
    gating: GatingScheme
    cost: CostModel


def build_network(config: RunConfig) -> Network:
    """Build the untrained network of a config. The config's seed decides its weights.

    Raises:
        ConfigError: If the backbone has no gate site of the gating scheme's kind, or the budget is below what the network
            costs with every gate shut.
        PluginError: If the backbone's gate sites name layers that it does not have.
        PartError: If a part raises an exception.
    """
    network = network_at_any_budget(config)
    _check_budget(config, network.cost)
    return network


def network_at_any_budget(config: RunConfig) -> Network:
    """The untrained network of a config, as :func:`build_network` builds it, also if the budget cannot be reached.

    Raises:
        ConfigError: If the backbone has no gate site of the gating scheme's kind.
        PluginError: If the backbone's gate sites name layers that it does not have.
        PartError: If a part raises an exception.
    """
    encoder, gating = build_encoder(config)
    _check_sites(config, encoder, gating)
    parts = NamedParts({"encoder": encoder, "gating": gating}, registered_parts(config))
    with parts.blamed(lambda: "while the cost is counted"):
        network = Network(encoder, gating, encoder.cost_model(config.data.image_size))
    _check_cost(config, network)
    return network


def build_encoder(config: RunConfig) -> tuple[Encoder, GatingScheme]:
    """Build the untrained encoder and its gating scheme, without counting the cost or checking that the parts fit."""
    seed_everything(config.seed, _INITIALISATION)
    gating = build("gating", config.gating, GatingScheme)
    norms = build("norm", config.norm, NormPolicy)

    def make_backbone(gate_factory: GateFactory) -> Backbone:
        return build("backbone", config.backbone, Backbone, norms.layer, gate_factory)

    encoder = build("encoder", config.encoder, Encoder, make_backbone, gating)
    if config.budget.budgets:
        set_budgets(encoder, config.budget.budgets, config.budget.target)
    return encoder, gating


def build_objective(config: RunConfig, feature_dim: int) -> Objective:
    """The objective with its heads. Their weights are drawn after the encoder's."""
    return build("objective", config.objective, Objective, feature_dim)


def build_data_set(config: RunConfig) -> DataSet:
    """The data set, not yet opened."""
    return build("data", config.data, DataSet)


def build_views(config: RunConfig) -> Views:
    """The recipe for views, at the size and with the normalisation of the data."""
    data = config.data
    return build("views", config.views, Views, data.image_size, data.mean, data.std)


def view_sizes(config: RunConfig) -> tuple[int, ...]:
    """The side of each view of a training, in pixels.

    Raises:
        ConfigError: If there are local views that have no route, or are as large as global ones.
    """
    views, image_size = build_views(config), config.data.image_size
    check_local_views(views, image_size, config.routes)
    return views.sizes(image_size, len(config.routes))


def build_optimizer(config: RunConfig, groups: Sequence[ParameterGroup]) -> Optimizer:
    """The optimiser of some parameters."""
    return build("optimizer", config.optimizer, Optimizer, groups, peak_lr(config))


def registered_parts(config: RunConfig) -> dict[str, Registered]:
    """The records of the parts that a config names, by kind, as far as they are installed."""
    named = {kind: getattr(config, kind).name for kind in KINDS if hasattr(config, kind)}
    return {kind: registry().find(kind, name) for kind, name in named.items() if registry().has(kind, name)}


def peak_lr(config: RunConfig) -> float:
    """The peak learning rate: ``optimizer.lr``, scaled by the global batch if the config says so."""
    if config.optimizer.lr_scaling == "none":
        return config.optimizer.lr
    return config.optimizer.lr * config.training.batch_size / 256


def _check_sites(config: RunConfig, encoder: Encoder, gating: GatingScheme) -> None:
    points = encoder.backbone(Route.GATED).gate_points()
    gated = {point.site.granularity for point in points if point.gate is not None}
    wanted = () if gating.granularity is None else gating.granularity.kinds
    lacking = next((kind for kind in wanted if kind not in gated), None)
    if lacking is None:
        return
    has = sorted({str(point.site.granularity) for point in points})
    why = encoder.backbone(Route.GATED).why_no_sites()
    raise ConfigError(
        f"gating {config.gating.name!r} acts on {lacking} sites, of which backbone {config.backbone.name!r} has"
        f" none (it has: {', '.join(has) or 'no gate sites at all'}){': ' + why if why else ''}"
    )


def _check_cost(config: RunConfig, network: Network) -> None:
    points = network.encoder.backbone(Route.GATED).gate_points()
    for gap in network.cost.gaps(point.site for point in points if point.gate is not None):
        raise PluginError(f"{registry().find('backbone', config.backbone.name)}: {gap}")


def _check_budget(config: RunConfig, cost: CostModel) -> None:
    least = min(config.budget.budgets, default=1.0)
    if least < cost.floor_ratio:
        raise ConfigError(
            f"budget.target = {least:g}: below what {config.backbone.in_words()} at {config.data.image_size} px"
            f" costs with every gate shut; allowed: {cost.floor_ratio:.5f} to 1"
        )
