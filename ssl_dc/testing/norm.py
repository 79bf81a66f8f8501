"""What a norm policy must do: checks on one layer at each position."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ssl_dc.norms.base import NormPolicy, Position, RouteNorm
from ssl_dc.routes import Route
from ssl_dc.testing.check import Subject, expect, expect_gradient, expect_instance
from ssl_dc.testing.compiled import claims_to_compile, compiled

CHANNELS = 5


def is_a_norm_policy(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.NormPolicy`."""
    expect_instance(subject.build(), NormPolicy)


def each_position_gets_a_new_norm_layer(subject: Subject) -> None:
    """For every position, `layer` gives a new `ssl_dc.RouteNorm` each time, which shares nothing with earlier ones."""
    policy: NormPolicy = subject.build()
    for position in Position:
        first, second = policy.layer(CHANNELS, position), policy.layer(CHANNELS, position)
        expect(
            isinstance(first, RouteNorm), f"expected an ssl_dc.RouteNorm at the position {position.value}, saw {first!r}"
        )
        shared = {id(t) for t in _tensors(first)} & {id(t) for t in _tensors(second)}
        expect(
            not shared,
            f"expected layers of their own, saw two at the position {position.value} share {len(shared)} tensors",
        )


def shape_and_dtype_are_kept(subject: Subject) -> None:
    """Both routes give a finite activation of the shape and dtype of the input."""
    for norm, _ in _norms(subject):
        for route in Route.BOTH:
            x = _activation()
            y = norm(x, route)
            expect(
                y.shape == x.shape and y.dtype is x.dtype and bool(y.isfinite().all()),
                f"expected finite {x.dtype} of the shape {tuple(x.shape)} on the {route} route, saw {y.dtype}"
                f" {tuple(y.shape)}",
            )


def for_route_is_the_batch_norm_that_acts(subject: Subject) -> None:
    """`for_route` gives the batch norm that computes the route, in both modes. Folding and export use its numbers."""
    for norm, position in _norms(subject):
        for route in Route.BOTH:
            acting = norm.for_route(route)
            where = f"on the {route} route at the position {position.value}"
            expect(isinstance(acting, nn.BatchNorm2d), f"expected a torch.nn.BatchNorm2d {where}, saw {acting!r}")
            _randomise(norm)
            norm.eval()
            _expect_same(norm(_activation(), route), acting(_activation()), f"{where} in evaluation mode")
            norm.train()
            expected = nn.functional.batch_norm(
                _activation(), None, None, acting.weight, acting.bias, training=True, eps=acting.eps
            )
            counted = int(acting.num_batches_tracked or 0)
            _expect_same(norm(_activation(), route), expected, f"{where} in training mode")
            expect(
                int(acting.num_batches_tracked or 0) == counted + 1,
                f"expected for_route's batch norm to count the batch {where}, saw that another one acted",
            )


def both_routes_are_trained_in_one_backward(subject: Subject) -> None:
    """After one backward of a gated and a dense activation together, every parameter has a finite gradient."""
    for norm, position in _norms(subject):
        x = _activation()
        loss = sum(((norm(x, route) * torch.randn(x.shape)).sum() for route in Route.BOTH), start=torch.zeros(()))
        loss.backward()
        for name, p in norm.named_parameters():
            expect_gradient(name, p, f" at the position {position.value}")


def it_works_under_bf16(subject: Subject) -> None:
    """Under bfloat16 autocast, both routes give a finite activation for a bfloat16 input."""
    for norm, _ in _norms(subject):
        for route in Route.BOTH:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = norm(_activation().bfloat16(), route)
            expect(bool(y.isfinite().all()), f"expected a finite activation on the {route} route, saw another")


def it_bears_conversion_to_synchronised_batch_norm(subject: Subject) -> None:
    """After torch's conversion to SyncBatchNorm, as for training on several GPUs, it still gets the route."""
    for norm, position in _norms(subject):
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        expect(
            isinstance(converted, RouteNorm),
            f"expected an ssl_dc.RouteNorm at the position {position.value} after the conversion, saw {converted!r}",
        )
        for route in Route.BOTH:
            acting = converted.for_route(route)
            expect(
                isinstance(acting, nn.SyncBatchNorm),
                f"expected for_route({route}) to be synchronised after the conversion, saw {acting!r}",
            )


def state_is_saved_whole(subject: Subject) -> None:
    """A new layer with the state of a trained one gives exactly the same on both routes."""
    for (norm, position), (again, _) in zip(_norms(subject), _norms(subject), strict=True):
        _randomise(norm)
        again.load_state_dict(norm.state_dict())
        for route in Route.BOTH:
            expected, seen = (one.eval()(_activation(), route) for one in (norm, again))
            expect(
                torch.equal(expected, seen),
                f"expected the same on the {route} route at the position {position.value} from the saved state, saw"
                " another",
            )


def compiles_whole_if_it_claims_to(subject: Subject) -> None:
    """If its options say `compiles = True`, torch.compile traces each route as one graph, with the same activation."""
    claims_to_compile(subject)
    for norm, position in _norms(subject):
        norm.eval()
        for route in Route.BOTH:
            where = f"on the {route} route at the position {position.value} when compiled"
            _expect_same(compiled(norm.forward)(_activation(), route), norm(_activation(), route), where)


def _norms(subject: Subject) -> Iterator[tuple[RouteNorm, Position]]:
    policy: NormPolicy = subject.build()
    for position in Position:
        yield policy.layer(CHANNELS, position), position


def _activation() -> Tensor:
    return 3 * torch.randn(6, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0)) + 2


def _tensors(norm: nn.Module) -> list[Tensor]:
    return [*norm.parameters(), *norm.buffers()]


@torch.no_grad()
def _randomise(norm: nn.Module) -> None:
    """Give every batch norm parameters and statistics that no other has."""
    for one in norm.modules():
        if isinstance(one, nn.BatchNorm2d):
            for tensor in (one.weight, one.bias, one.running_mean, one.running_var):
                if tensor is not None:
                    tensor.uniform_(0.5, 1.5)


def _expect_same(seen: Tensor, expected: Tensor, where: str) -> None:
    expect(
        torch.allclose(seen, expected, rtol=1e-4, atol=1e-5),
        f"expected what for_route's batch norm computes {where}, saw it off by {(seen - expected).abs().max():g}",
    )


CHECKS = (
    is_a_norm_policy,
    each_position_gets_a_new_norm_layer,
    shape_and_dtype_are_kept,
    for_route_is_the_batch_norm_that_acts,
    both_routes_are_trained_in_one_backward,
    it_works_under_bf16,
    it_bears_conversion_to_synchronised_batch_norm,
    state_is_saved_whole,
    compiles_whole_if_it_claims_to,
)
