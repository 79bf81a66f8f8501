"""Every objective with every gating scheme, encoder, backbone and norm policy that is installed: two steps each.

All train, or refuse with a sentence that says which two parts do not fit and why. Parts come from the registry, so that the
plugins that are installed are among them. The quick suite takes the combinations that have every pair of parts among
them; the whole product runs with ``-m "slow or not slow"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

import pytest
import torch

from helpers.settings import config_of
from helpers.training import Told, trainer_of
from ssl_dc.assemble import build, build_network
from ssl_dc.config import RunConfig
from ssl_dc.errors import ConfigError
from ssl_dc.gating.base import GatingScheme, gates_of
from ssl_dc.gating.sites import Granularity
from ssl_dc.plugins.registry import registry
from ssl_dc.routes import Route

KINDS = ("objective", "gating", "encoder", "backbone", "norm")

RUN: Mapping[str, Any] = {
    "data.limit": 16,
    "data.test_limit": 10,
    "training.epochs": 1,
    "training.batch_size": 8,
    "training.workers": 0,
    "training.log_every": 1,
}
"""Two steps on 16 px."""

SMALL: Mapping[str, Any] = {"width": 4, "stem": "cifar", "expander_width": 8, "hidden_width": 8}
"""Options that make a part small, where it has them."""

VARIANTS: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]] = {
    ("backbone", "timm"): [
        {"model": "resnet10t"},
        {"model": "vit_tiny_patch16_224", "img_size": 16, "patch_size": 4},
        {"model": "lcnet_035"},
    ],
}
"""Options of a part that decide what it fits."""

WITHOUT_SITES = {"lcnet_035"}


def lacks_sites(config: RunConfig) -> bool:
    """Whether the backbone of a config has no gate sites of a kind that its gating scheme acts on."""
    if config.backbone.name != "timm" or not config.gating.gates:
        return False
    granularity = build("gating", config.gating, GatingScheme).granularity
    over_positions = granularity is not None and Granularity.POSITION in granularity
    return over_positions or getattr(config.backbone, "model", "") in WITHOUT_SITES


Choice = dict[str, Any]
"""A part and its options, as settings."""


def choices(kind: str) -> list[Choice]:
    """The parts of a kind that are installed, small."""
    found = []
    for name in registry().names(kind):
        fields = registry().find(kind, name).options_model().model_fields
        small = {option: value for option, value in SMALL.items() if option in fields}
        for variant in VARIANTS.get((kind, name), [{}]):
            options = {f"{kind}.{option}": value for option, value in {**small, **variant}.items()}
            found.append({f"{kind}.name": name, **options})
    return found


def label(combination: Sequence[Choice]) -> str:
    return "-".join("/".join(str(value) for value in choice.values() if isinstance(value, str)) for choice in combination)


def covering(every: Sequence[tuple[Choice, ...]]) -> set[str]:
    """Labels of combinations that have among them every pair of choices, found greedily."""

    def pairs(combination: tuple[Choice, ...]) -> set[tuple[str, str]]:
        return set(combinations([label([choice]) for choice in combination], 2))

    missing = set().union(*map(pairs, every))
    chosen = set()
    while missing:
        best = max(every, key=lambda combination: len(pairs(combination) & missing))
        chosen.add(label(best))
        missing -= pairs(best)
    return chosen


EVERY = list(product(*map(choices, KINDS)))
QUICK = covering(EVERY)


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(combination, id=label(combination), marks=() if label(combination) in QUICK else pytest.mark.slow)
        for combination in EVERY
    ],
)
def test_every_combination_trains_or_says_which_two_parts_do_not_fit(combination: tuple[Choice, ...]) -> None:
    settings = {key: value for choice in combination for key, value in choice.items()}
    settings = {**RUN, **settings}
    config = config_of(settings)
    if lacks_sites(config):
        with pytest.raises(ConfigError) as refused:
            trainer_of(settings)
        sentence = str(refused.value)
        assert f"gating {config.gating.name!r} acts on" in sentence
        assert f"backbone {config.backbone.name!r} has none" in sentence
        return
    before = {name: p.clone() for name, p in build_network(config).encoder.named_parameters()}
    trainer, told = trainer_of(settings), Told()
    trainer.fit(watchers=[told])
    losses = told.values("loss")
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    encoder = trainer.learner.encoder.eval()
    moved = {name for name, p in encoder.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.endswith("weight") for name in moved)
    for route in (Route.DENSE, Route.GATED) if config.gating.gates else (Route.DENSE,):
        features, masks = encoder(torch.randn(3, 3, 16, 16), route)
        assert features.shape == (3, encoder.feature_dim)
        assert torch.isfinite(features).all()
        assert len(masks) == (len(gates_of(encoder)) if route.gated else 0)
        assert all(set(mask.unique().tolist()) <= {0.0, 1.0} for mask in masks.values())


def test_the_quick_combinations_have_every_pair_of_parts() -> None:
    def pairs(of: Sequence[tuple[Choice, ...]]) -> set[tuple[str, str]]:
        return {(label([a]), label([b])) for combination in of for a, b in combinations(combination, 2)}

    assert pairs([combination for combination in EVERY if label(combination) in QUICK]) == pairs(EVERY)
    assert len({label(combination) for combination in EVERY}) == len(EVERY)
