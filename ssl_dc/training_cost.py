"""What training costs in MACs, and how many of them a machine computes in a second."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import nn

from ssl_dc.assemble import build_network, build_objective, view_sizes
from ssl_dc.config import RunConfig
from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError
from ssl_dc.gating.cost import CostModel
from ssl_dc.routes import Route

MACS_PER_CORE = 3e10
"""MACs a second of training that one CPU core computes: a cautious value. In CPU time of a thread 4.8e10 (width 16, 32 px)
to 7.2e10 (width 64, 64 px) were measured; several threads get less of each core."""

MACS_PER_GPU = 5e12
"""The same of one GPU: a cautious value. An H100 reaches 2e13."""

PASSES = 3
"""Forward passes that cost as much as a training step. The backward pass costs about two."""


def training_macs(config: RunConfig) -> int:
    """MACs of training on one image: all views at their own sizes, forward and backward, encoder and heads.

    Raises:
        ConfigError: If the network cannot be built, or does not take views of these sizes.
    """
    # only the settings that decide the shapes, so that runs of one shape share the cached count
    shape = RunConfig(
        objective=config.objective, backbone=config.backbone, data=config.data.model_copy(update={"root": None})
    ).model_dump_json()
    views = list(zip(view_sizes(config), config.routes, strict=True))
    taught = [size for size, route in views if route.gated] if config.training.distillation > 0 else []
    passes = PASSES * sum(_forward_macs(shape, size) for size, _ in views)
    return passes + PASSES * sum(_forward_macs(shape, size) for size in taught)


@cache
def _forward_macs(config_json: str, size: int) -> int:
    """MACs of one view of this size of one image, through encoder and heads."""
    config = RunConfig.model_validate_json(config_json)
    network = build_network(config.model_copy(update={"budget": config.budget.model_copy(update={"target": 1.0})}))
    objective = build_objective(config, network.encoder.feature_dim)
    heads = sum(layer.weight.numel() for layer in objective.modules() if isinstance(layer, nn.Linear))
    cost = network.cost if size == config.data.image_size else local_cost(network.encoder, size)
    return cost.dense_macs + heads


def local_cost(encoder: Encoder, size: int) -> CostModel:
    """What an encoder costs for local views of this size.

    Raises:
        ConfigError: If its network does not take images of this size.
    """
    try:
        return encoder.cost_model(size)
    except Exception as error:  # any network may raise anything at a size that it is not made for
        said = str(error).strip() or type(error).__name__
        raise ConfigError(f"local views of {size} px do not fit the network, which must take any size: {said}") from error


def check_local_budget(cost: CostModel, size: int, routes: Sequence[Route], budgets: Sequence[float]) -> None:
    """Check that gated local views can be held to the budgets, which are shares of the dense cost at the views' own size.

    Args:
        cost: What the encoder costs for local views.
        size: Their side, in pixels.
        routes: The routes of the local views.
        budgets: What the gated route may cost.

    Raises:
        ConfigError: If a budget is below what they cost with every gate shut.
    """
    least = min(budgets, default=1.0)
    if least < cost.floor_ratio and any(route.gated for route in routes):
        raise ConfigError(
            f"budget.target = {least:g}: a gated local view of {size} px costs at least {cost.floor_ratio:.5f} of the dense"
            " cost at that size, with every gate shut; raise the budget or views.local_size, or make local views dense"
        )
