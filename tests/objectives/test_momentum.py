"""The momentum copy that objectives take their targets from: what it follows, what it keeps, which routes it takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from helpers.settings import config_of
from ssl_dc.assemble import build_network
from ssl_dc.encoders.base import Encoder
from ssl_dc.objectives.momentum import MomentumTarget, follow, momentum_at
from ssl_dc.objectives.options import MomentumOptions
from ssl_dc.routes import Route
from ssl_dc.testing.counterparts import flat_encoder, random_images

HALF = MomentumOptions(name="any", momentum=0.5)


def resnet() -> Encoder:
    """A network with gates and batch norms."""
    settings = {"gating.name": "dgnet", "budget.target": 0.3, "backbone.width": 4, "backbone.stem": "cifar"}
    return build_network(config_of(settings)).encoder.train()


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_momentum_rises_from_its_start_to_1_along_a_cosine(progress: float) -> None:
    half_turn = complex(math.e) ** complex(0, math.pi * progress)
    assert momentum_at(progress, 0.996) == pytest.approx(1 - 0.004 * (half_turn.real + 1) / 2, rel=1e-12)
    assert momentum_at(0.0, 0.9) == pytest.approx(0.9)
    assert momentum_at(1.0, 0.9) == 1.0


def test_the_copy_keeps_its_own_batch_statistics_and_takes_over_every_other_buffer() -> None:
    encoder = resnet()
    copied = copy.deepcopy(encoder)
    images = random_images(4, 12)
    encoder(images, Route.DENSE)
    before = {name: buffer.clone() for name, buffer in copied.named_buffers()}
    with torch.no_grad():
        for name, buffer in encoder.named_buffers():
            if name.endswith(("budgets", "thresholds")):
                buffer += 0.7
    follow(copied, encoder, 0.5)
    network = dict(encoder.named_buffers())
    for name, buffer in copied.named_buffers():
        is_threshold = name.endswith(("budgets", "thresholds"))
        assert torch.equal(buffer, network[name] if is_threshold else before[name]), name
    changed = [name for name in before if not torch.equal(before[name], network[name])]
    assert any(name.endswith("running_mean") for name in changed), "the network's statistics must have moved"
    copied(images, Route.DENSE)
    assert any(not torch.equal(before[name], buffer) for name, buffer in copied.named_buffers() if "running_mean" in name)


def test_it_moves_by_its_momentum_and_takes_no_gradient() -> None:
    encoder, head = flat_encoder(), nn.Linear(12, 3)
    target = MomentumTarget(HALF)
    target.bind(encoder, head)
    before = [p.clone() for p in target.parameters()]
    network = [*encoder.parameters(), *head.parameters()]
    with torch.no_grad():
        for p in network:
            p += 1
    target.follow(encoder, head, progress=0.0)
    for own, old in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(own, old + 0.5)
        assert not own.requires_grad
    target.follow(encoder, head, progress=1.0)
    for own, old in zip(target.parameters(), before, strict=True):
        torch.testing.assert_close(own, old + 0.5, msg="at the end the copy stays as it is")
    (made,) = target([random_images(2, 4)], [Route.DENSE])
    assert not made.requires_grad


@pytest.mark.parametrize("target_route", ["dense", "same"])
def test_each_view_takes_the_route_that_was_asked_for(target_route: str) -> None:
    encoder, head = resnet().eval(), nn.Identity()
    target = MomentumTarget(MomentumOptions.model_validate({"name": "any", "target_route": target_route}))
    target.bind(encoder, head)
    images = random_images(4, 12)
    seen = target([images, images], [Route.GATED, Route.DENSE])
    first = Route.GATED if target_route == "same" else Route.DENSE
    for made, route in zip(seen, (first, Route.DENSE), strict=True):
        assert torch.equal(made, encoder(images, route).features)
    assert not torch.equal(encoder(images, Route.GATED).features, encoder(images, Route.DENSE).features)


def test_a_copy_of_nothing_says_what_to_do() -> None:
    target = MomentumTarget(HALF)
    with pytest.raises(RuntimeError, match="call bind"):
        target([random_images(2, 4)], [Route.DENSE])
    with pytest.raises(RuntimeError, match="call bind"):
        target.follow(flat_encoder(), nn.Identity(), 0.5)
