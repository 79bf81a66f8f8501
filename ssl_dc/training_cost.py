"""What training costs in MACs, and how many of them a machine computes in a second."""

from __future__ import annotations

from functools import cache

from torch import nn

from ssl_dc.assemble import build_network, build_objective
from ssl_dc.config import RunConfig

MACS_PER_CORE = 3e10
"""MACs a second of training that one CPU core computes: a cautious value. In CPU time of a thread 4.8e10 (width 16, 32 px)
to 7.2e10 (width 64, 64 px) were measured; several threads get less of each core."""

MACS_PER_GPU = 5e12
"""The same of one GPU: a cautious value. An H100 reaches 2e13."""

PASSES = 3
"""Forward passes that cost as much as a training step. The backward pass costs about two."""


def training_macs(config: RunConfig) -> int:
    """MACs of training on one image: all views, forward and backward, encoder and heads.

    Raises:
        ConfigError: If the network cannot be built.
    """
    # only the settings that decide the shapes, so that runs of one shape share the cached count
    views = len(config.routes)
    return (
        PASSES
        * views
        * _forward_macs(
            RunConfig(
                objective=config.objective, backbone=config.backbone, data=config.data.model_copy(update={"root": None})
            ).model_dump_json()
        )
    )


@cache
def _forward_macs(config_json: str) -> int:
    """MACs of one view of one image, through encoder and heads."""
    config = RunConfig.model_validate_json(config_json)
    network = build_network(config.model_copy(update={"budget": config.budget.model_copy(update={"target": 1.0})}))
    objective = build_objective(config, network.encoder.feature_dim)
    heads = sum(layer.weight.numel() for layer in objective.modules() if isinstance(layer, nn.Linear))
    return network.cost.dense_macs + heads
