"""What an encoder must do: checks with a network of two blocks and linear gates."""

from __future__ import annotations

import torch

from ssl_dc.backbones.base import Backbone
from ssl_dc.encoders.base import Encoder
from ssl_dc.gating.base import GateFactory, GatingScheme, gates_of
from ssl_dc.gating.counting import counted_macs
from ssl_dc.gating.none import NoGating
from ssl_dc.gating.options import NoGatingOptions
from ssl_dc.norms.options import SharedNormsOptions
from ssl_dc.norms.shared import SharedNorms
from ssl_dc.routes import Route
from ssl_dc.testing.check import Subject, expect, expect_gradient, expect_instance
from ssl_dc.testing.compiled import claims_to_compile, compiled
from ssl_dc.testing.counterparts import LinearGating, SmallBackbone, random_images

ROWS = 8
SIZE = 16


def is_an_encoder(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Encoder`."""
    expect_instance(_encoder(subject), Encoder)


def both_routes_give_features_of_the_declared_width(subject: Subject) -> None:
    """Both routes give finite float32 features (N, feature_dim), in training and in evaluation mode."""
    encoder = _encoder(subject)
    for training in (True, False):
        for route in Route.BOTH:
            features = encoder.train(training)(random_images(ROWS, SIZE), route).features
            expect(
                features.shape == (ROWS, encoder.feature_dim) and features.dtype is torch.float32,
                f"expected float32 features of the shape ({ROWS}, {encoder.feature_dim}) on the {route} route, saw"
                f" {features.dtype} {tuple(features.shape)}",
            )
            expect(bool(features.isfinite().all()), f"expected finite features on the {route} route, saw others")


def masks_come_with_the_gated_route_only(subject: Subject) -> None:
    """The gated route gives the mask of every gated site of its backbone; the dense route gives none."""
    encoder = _encoder(subject)
    gated = {p.site.name: p.site.channels for p in encoder.backbone(Route.GATED).gate_points() if p.gate is not None}
    expect(bool(gated), "expected gates in the backbone of the gated route, saw none")
    seen = {site: mask.shape[1] for site, mask in encoder(random_images(ROWS, SIZE), Route.GATED).masks.items()}
    expect(seen == gated, f"expected masks (site and width) {gated} on the gated route, saw {seen}")
    masks = encoder(random_images(ROWS, SIZE), Route.DENSE).masks
    expect(not masks, f"expected no masks on the dense route, saw those of {sorted(masks)}")


def the_dense_route_runs_no_gate(subject: Subject) -> None:
    """The dense route runs no gate, so that its cost is the dense cost."""
    encoder = _encoder(subject)
    ran = []
    for gate in gates_of(encoder):
        gate.register_forward_hook(lambda gate, _inputs, _mask: ran.append(gate))
    encoder(random_images(ROWS, SIZE), Route.DENSE)
    expect(not ran, f"expected no gate to run on the dense route, saw {len(ran)} run")


def both_routes_are_trained_in_one_backward(subject: Subject) -> None:
    """After one backward of a gated and a dense view together, every parameter has a finite gradient."""
    encoder = _encoder(subject)
    expect(any(True for _ in encoder.parameters()), "expected parameters to train, saw none")
    images = random_images(ROWS, SIZE)
    features = [encoder(images, route).features for route in Route.BOTH]
    sum(((one * torch.randn(one.shape)).sum() for one in features), start=torch.zeros(())).backward()
    for name, p in encoder.named_parameters():
        expect_gradient(name, p, " from the two routes together")


def declared_cost_is_the_counted_cost(subject: Subject) -> None:
    """The dense cost and the cost of the gates add up to what torch counts on the gated route, at two image sizes."""
    encoder = _encoder(subject).eval()
    for size in (SIZE, SIZE + 8):
        declared = sum(layer.macs for layer in encoder.cost_model(size).layers)
        counted = counted_macs(encoder, random_images(1, size), Route.GATED)
        expect(
            declared == counted,
            f"expected a declared cost of {counted:,} MACs, as counted on the gated route at {size} px, saw {declared:,}",
        )


def it_works_without_gates(subject: Subject) -> None:
    """With a scheme that gates nothing, the dense route works, and its cost is the whole cost."""
    encoder = _encoder(subject, NoGating(NoGatingOptions()))
    features, masks = encoder(random_images(ROWS, SIZE), Route.DENSE)
    expect(features.shape == (ROWS, encoder.feature_dim), f"expected features as with gates, saw {tuple(features.shape)}")
    expect(not masks and not gates_of(encoder), "expected no gates of a scheme that gates nothing, saw some")
    cost = encoder.cost_model(SIZE)
    expect(cost.floor_macs == cost.dense_macs, f"expected nothing to be saved without gates, saw {cost.floor_ratio:.3f}")


def it_works_under_bf16(subject: Subject) -> None:
    """Under bfloat16 autocast both routes give finite features, and masks of 0 and 1."""
    encoder = _encoder(subject)
    for route in Route.BOTH:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features, masks = encoder(random_images(ROWS, SIZE), route)
        expect(bool(features.isfinite().all()), f"expected finite features on the {route} route, saw others")
        for site, mask in masks.items():
            expect(bool(((mask == 0) | (mask == 1)).all()), f"expected a mask of 0 and 1 at {site}, saw other values")


def state_is_saved_whole(subject: Subject) -> None:
    """A new encoder with the state of a trained one gives exactly the same features on both routes."""
    encoder, again = _encoder(subject), _encoder(subject)
    images = random_images(ROWS, SIZE)
    for route in Route.BOTH:
        encoder(images, route)
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    again.load_state_dict(encoder.state_dict())
    for route in Route.BOTH:
        expected, seen = (one.eval()(images, route).features for one in (encoder, again))
        expect(
            torch.equal(expected, seen),
            f"expected the same features on the {route} route from the saved state, saw them differ by"
            f" {(expected - seen).abs().max():g}",
        )


def compiles_whole_if_it_claims_to(subject: Subject) -> None:
    """If its options say `compiles = True`, torch.compile traces each route as one graph, with the same features."""
    claims_to_compile(subject)
    encoder = _encoder(subject).eval()
    images = random_images(ROWS, SIZE)
    for route in Route.BOTH:
        expected, seen = encoder(images, route).features, compiled(encoder.forward)(images, route).features
        expect(
            torch.allclose(expected, seen, rtol=1e-4, atol=1e-5),
            f"expected the same features on the {route} route when compiled, saw them differ by"
            f" {(expected - seen).abs().max():g}",
        )


def _encoder(subject: Subject, gating: GatingScheme | None = None) -> Encoder:
    def make_backbone(gate_factory: GateFactory) -> Backbone:
        return SmallBackbone(SharedNorms(SharedNormsOptions()).layer, gate_factory)

    encoder: Encoder = subject.build(make_backbone, gating or LinearGating())
    return encoder


CHECKS = (
    is_an_encoder,
    both_routes_give_features_of_the_declared_width,
    masks_come_with_the_gated_route_only,
    the_dense_route_runs_no_gate,
    both_routes_are_trained_in_one_backward,
    declared_cost_is_the_counted_cost,
    it_works_without_gates,
    it_works_under_bf16,
    state_is_saved_whole,
    compiles_whole_if_it_claims_to,
)
