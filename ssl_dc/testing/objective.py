"""What an objective must do: checks with a tiny encoder, which it is joined with as the training loop does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_dc.objectives.base import EncodedViews, Objective, ObjectiveOutput
from ssl_dc.routes import Route
from ssl_dc.testing.check import (
    ConformanceError,
    DoesNotApplyError,
    Subject,
    expect,
    expect_finite_gradient,
    expect_gradient,
    expect_instance,
    reseed,
)
from ssl_dc.testing.compiled import claims_to_compile, compiled
from ssl_dc.testing.counterparts import FLAT_FEATURES, FLAT_SIZE, flat_encoder, similar_views
from ssl_dc.testing.two_processes import WORLD, in_two_processes
from ssl_dc.training.learner import Learner

ROWS = 8
"""Images in a batch, if the objective does not need more; with two processes, in the batch of each."""


def is_an_objective(subject: Subject) -> None:
    """What the target builds is an `ssl_dc.Objective`."""
    expect_instance(subject.build(FLAT_FEATURES), Objective)


def terms_bear_the_names_of_the_weights(subject: Subject) -> None:
    """The names of the loss terms are those of the weights, and each weight is a finite number."""
    learner = _learner(subject)
    weights, terms = learner.objective.weights, _terms(learner)
    expect(set(terms) == set(weights), f"expected terms named as the weights, {sorted(weights)}, saw {sorted(terms)}")
    expect(bool(terms), "expected at least one loss term, saw none")
    for name, weight in weights.items():
        expect(math.isfinite(weight), f"expected a finite weight of {name!r}, saw {weight!r}")


def terms_are_finite_float32_scalars(subject: Subject) -> None:
    """Each term is a finite float32 scalar, whichever routes the views take."""
    learner = _learner(subject)
    alternating = _routes(learner)
    count = len(alternating)
    for routes in (alternating, alternating[::-1], (Route.DENSE,) * count, (Route.GATED,) * count):
        _expect_loss_terms(_terms(learner, routes))


def as_many_views_are_taken_as_it_says(subject: Subject) -> None:
    """`views` is None or a number from 2. If it is None, three views give finite terms and three embeddings."""
    learner = _learner(subject)
    views = learner.objective.views
    expect(views is None or views >= 2, f"expected views to be None or a number from 2, saw {views!r}")
    if views is None:
        output = _output(learner, (Route.GATED, Route.DENSE, Route.DENSE))
        _expect_loss_terms(output.terms)
        expect(len(output.embeddings) == 3, f"expected three embeddings of three views, saw {len(output.embeddings)}")


def terms_are_float32_under_bf16(subject: Subject) -> None:
    """Under bfloat16 autocast and with bfloat16 features, terms are finite float32, and gradients are finite."""
    learner = _learner(subject)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = _terms(learner)
        _expect_loss_terms(terms)
        loss = _loss(learner, terms)
    loss.backward()
    for name, p in learner.named_parameters():
        expect_finite_gradient(name, p)


def there_is_an_embedding_of_each_view(subject: Subject) -> None:
    """The output has one embedding (N, D) for each view. Training watches it for collapse."""
    learner = _learner(subject)
    shapes = [tuple(z.shape) for z in _output(learner).embeddings]
    count, rows = len(_routes(learner)), _rows(learner)
    expect(
        len(shapes) == count and all(len(shape) == 2 and shape[0] == rows for shape in shapes),
        f"expected {count} embeddings of the shape ({rows}, D), saw {shapes}",
    )


def every_trainable_parameter_gets_a_gradient(subject: Subject) -> None:
    """Each parameter of the heads that requires a gradient gets a finite one. Copies that do not learn require none."""
    learner = _learner(subject)
    _loss(learner, _terms(learner)).backward()
    for name, p in learner.objective.named_parameters():
        if p.requires_grad:
            expect_gradient(name, p)
        else:
            expect(p.grad is None, f"expected no gradient of {name}, which does not require one, saw one")


def trained_views_get_a_gradient(subject: Subject) -> None:
    """The features of each view in `trained_views` get a finite gradient that is not all 0; those of others get none."""
    learner = _learner(subject)
    routes = _routes(learner)
    views = similar_views(_rows(learner), FLAT_SIZE, len(routes))
    features = [learner.encoder(view, route).features for view, route in zip(views, routes, strict=True)]
    for one in features:
        one.retain_grad()
    terms = learner.objective(EncodedViews(views, features, routes)).terms
    _loss(learner, terms).backward()
    said = learner.objective.trained_views
    trained = tuple(range(len(routes)) if said is None else said)
    expect(bool(set(trained) & set(range(len(routes)))), f"expected trained_views to name a view, saw {trained}")
    for number, one in enumerate(features):
        reached = one.grad is not None and bool(one.grad.any())
        expect(
            reached == (number in trained),
            f"expected {'a' if number in trained else 'no'} gradient of the features of view {number}, as trained_views ="
            f" {trained} says, saw {'one' if reached else 'none'}",
        )
        expect(one.grad is None or bool(one.grad.isfinite().all()), f"expected finite gradients, saw {one.grad}")


def the_encoder_is_left_alone(subject: Subject) -> None:
    """`bind` and `after_step` leave the encoder unchanged, and no parameter of the encoder is one of the objective."""
    learner = _learner(subject)
    before = {name: value.clone() for name, value in learner.encoder.state_dict().items()}
    _terms(learner)
    for progress in (0.0, 0.5, 1.0):
        learner.objective.after_step(learner.encoder, progress)
    for name, value in learner.encoder.state_dict().items():
        expect(torch.equal(value, before[name]), f"expected the encoder's {name} to be left alone, saw it changed")
    of_encoder = {id(p) for p in learner.encoder.parameters()}
    shared = [name for name, p in learner.objective.named_parameters() if id(p) in of_encoder]
    expect(
        not shared, f"expected a copy of the encoder at most, saw the encoder's own parameters as {', '.join(shared[:3])}"
    )


def state_is_saved_whole(subject: Subject) -> None:
    """A new objective with the state of one in training goes on exactly as that one does, momentum copies included."""
    learner = _learner(subject)
    _train(learner, steps=2)
    saved = {name: value.clone() for name, value in learner.state_dict().items()}
    reseed(1)
    restored = _learner(subject)
    restored.load_state_dict(saved)
    for step in ("the next step", "the step after that"):
        expected, seen = (_values(_train(one, steps=1)) for one in (learner, restored))
        expect(expected == seen, f"expected the terms {expected} of {step} again from the saved state, saw {seen}")


def two_processes_are_one(subject: Subject) -> None:
    """Two processes with a batch each have the terms and the mean gradient of one process with both, for two steps."""
    alone = take_steps(subject)
    try:
        _expect_same_steps(alone, take_steps(subject, seed=1), "after other random draws")
    except ConformanceError:
        raise DoesNotApplyError("its terms depend on random draws, which differ between processes") from None
    for rank, seen in enumerate(in_two_processes(take_steps_with_another, subject)):
        _expect_same_steps(alone, seen, f"in process {rank} of two")


def compiles_whole_if_it_claims_to(subject: Subject) -> None:
    """If its options have `compiles = True`, torch.compile traces it as one graph, with the same terms and gradients."""
    claims_to_compile(subject)
    eager, traced = _learner(subject), _learner(subject)
    traced.load_state_dict(eager.state_dict())
    traced.objective.forward = compiled(traced.objective.forward)  # type: ignore[method-assign]
    expected, seen = (_values(_train(learner, steps=1)) for learner in (eager, traced))
    for name, value in expected.items():
        expect(
            math.isclose(value, seen[name], rel_tol=1e-4, abs_tol=1e-6),
            f"expected the term {name!r} to be {value:g} when compiled too, saw {seen[name]:g}",
        )
    for (name, p), q in zip(eager.named_parameters(), traced.parameters(), strict=True):
        expect(torch.allclose(p, q, rtol=1e-4, atol=1e-6), f"expected the same step of {name} when compiled, saw another")


def _learner(subject: Subject) -> Learner:
    """The objective and a tiny encoder, as the training loop puts them together."""
    encoder = flat_encoder()
    objective: Objective = subject.build(FLAT_FEATURES)
    objective.bind(encoder)
    return Learner(encoder, objective)


def _rows(learner: Learner) -> int:
    """Images in a batch."""
    return max(ROWS, learner.objective.least_batch)


def _routes(learner: Learner) -> tuple[Route, ...]:
    """A route for each view that the objective takes, gated and dense in turn."""
    count = learner.objective.views or 2
    return tuple(Route.DENSE if number % 2 else Route.GATED for number in range(count))


def _output(learner: Learner, routes: Sequence[Route] | None = None) -> ObjectiveOutput:
    routes = _routes(learner) if routes is None else routes
    output: ObjectiveOutput = learner(similar_views(_rows(learner), FLAT_SIZE, len(routes)), routes).objective
    return output


def _terms(learner: Learner, routes: Sequence[Route] | None = None) -> dict[str, Tensor]:
    return _output(learner, routes).terms


def _loss(learner: Learner, terms: Mapping[str, Tensor]) -> Tensor:
    weights = learner.objective.weights
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _values(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def _expect_loss_terms(terms: Mapping[str, Tensor]) -> None:
    for name, term in terms.items():
        expect(
            term.dtype is torch.float32 and term.ndim == 0,
            f"expected the term {name!r} to be a float32 scalar, saw {term.dtype} of the shape {tuple(term.shape)}",
        )
        expect(bool(term.isfinite()), f"expected a finite term {name!r}, saw {term.item()}")


def _train(learner: Learner, steps: int) -> dict[str, Tensor]:
    """Take steps of plain gradient descent, and give the terms of the last."""
    for step in range(steps):
        reseed(step)
        terms = _terms(learner)
        learner.zero_grad()
        _loss(learner, terms).backward()
        _descend(learner)
        learner.objective.after_step(learner.encoder, progress=0.5)
    return terms


@torch.no_grad()
def _descend(learner: Learner) -> None:
    for p in learner.parameters():
        if p.grad is not None:
            p.sub_(p.grad, alpha=1e-2)


Step = dict[str, npt.NDArray[np.float64]]
"""The numbers of one step by name: each term, and the gradient of each parameter."""


def take_steps_with_another(subject: Subject, rank: int) -> list[Step]:
    """The steps of one of two processes that train together."""
    # wrapped as the training loop does
    return take_steps(subject, rank, lambda learner: DistributedDataParallel(learner, find_unused_parameters=True))


def take_steps(
    subject: Subject,
    rank: int | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda learner: learner,
    seed: int = 0,
) -> list[Step]:
    """Terms and gradients of two steps, in float64.

    Args:
        subject: The objective.
        rank: The process whose images are used; None for the images of both.
        wrap: Wraps the encoder with the objective into what is called.
        seed: Seed of what the objective draws while it trains.
    """
    reseed()
    learner = _learner(subject).double()
    wrapped, routes, rows = wrap(learner), _routes(learner), _rows(learner)
    images = slice(None) if rank is None else slice(rank * rows, (rank + 1) * rows)
    steps = []
    for number in range(2):
        reseed(seed + number)
        views = [view.double()[images] for view in similar_views(WORLD * rows, FLAT_SIZE, len(routes))]
        terms = wrapped(views, routes).objective.terms
        learner.zero_grad()
        _loss(learner, terms).backward()
        steps.append(_numbers(learner, terms))
        _descend(learner)
        learner.objective.after_step(learner.encoder, progress=0.5)
    return steps


def _numbers(learner: Learner, terms: Mapping[str, Tensor]) -> Step:
    numbers = {f"the term {name!r}": np.array([value]) for name, value in _values(terms).items()}
    for name, p in learner.named_parameters():
        if p.grad is not None:
            numbers[f"the gradient of {name}"] = p.grad.flatten().numpy().copy()
    return numbers


def _expect_same_steps(expected: Sequence[Step], seen: Sequence[Step], where: str) -> None:
    for number, (one, other) in enumerate(zip(expected, seen, strict=True), start=1):
        expect(one.keys() == other.keys(), f"expected {sorted(one)} {where}, saw {sorted(other)}")
        largest = max(float(np.abs(values).max()) for what, values in one.items() if "gradient" in what)
        for what, values in one.items():
            off = np.abs(values - other[what])
            worst = int(off.argmax())
            expect(
                bool((off <= 1e-5 * np.abs(values) + (1e-5 * largest if "gradient" in what else 1e-6)).all()),
                f"expected {what} of step {number} to be {values[worst]:g}, as in one process, saw {other[what][worst]:g}"
                f" {where}",
            )


CHECKS = (
    is_an_objective,
    terms_bear_the_names_of_the_weights,
    terms_are_finite_float32_scalars,
    as_many_views_are_taken_as_it_says,
    terms_are_float32_under_bf16,
    there_is_an_embedding_of_each_view,
    every_trainable_parameter_gets_a_gradient,
    trained_views_get_a_gradient,
    the_encoder_is_left_alone,
    state_is_saved_whole,
    two_processes_are_one,
    compiles_whole_if_it_claims_to,
)
