"""A trainer whose parts are those that a config names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ssl_dc.assemble import build_network, build_objective, build_optimizer, build_views, registered_parts, view_sizes
from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet
from ssl_dc.encoders.base import Encoder
from ssl_dc.objectives.base import Objective, check_views
from ssl_dc.plugins.registry import registry
from ssl_dc.training.trainer import Trainer


def trainer_from_config(config: RunConfig, images: ImageSet, *, begin: Callable[[Encoder], None] | None = None) -> Trainer:
    """Build every part of a config, and the trainer of these parts, which trains ``trainer.learner.encoder``.

    Args:
        config: The complete config.
        images: The training images.
        begin: Called with the untrained encoder, which it may give other weights.

    Raises:
        ConfigError: If the parts do not fit one another, or the budget cannot be met.
    """
    _check_views(config)
    view_sizes(config)  # to refuse local views that do not fit before the network is built
    network = build_network(config)
    objective = build_objective(config, network.encoder.feature_dim)
    if begin is not None:  # after all weights are drawn, so that it changes no other weights
        begin(network.encoder)
    return Trainer(
        encoder=network.encoder,
        objective=objective,
        gating=network.gating,
        cost=network.cost,
        optimizer=partial(build_optimizer, config),
        images=images,
        views=build_views(config),
        image_size=config.data.image_size,
        training=config.training,
        budget=config.budget,
        routes=config.routes,
        seed=config.seed,
        registered=registered_parts(config),
    )


def _check_views(config: RunConfig) -> None:
    """Refuse a config with more or fewer routes than its objective takes views, before anything is built."""
    registered = registry().find("objective", config.objective.name)
    target = registered.target()
    if isinstance(target, type) and issubclass(target, Objective):
        check_views(target, str(registered), config.routes)
