"""What is wrong with a training's numbers is told once, with its step, and ends the run where the config says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ssl_dc
from helpers.settings import TINY, TWO_BY_TWO
from helpers.training import Told, assert_same_files, trainer_of
from ssl_dc.config import TrainingConfig
from ssl_dc.errors import RunError
from ssl_dc.gating.base import gates_of, set_threshold
from ssl_dc.objectives.base import EncodedViews, ObjectiveOutput
from ssl_dc.trackers.base import Watcher
from ssl_dc.training.checkpoint import CheckpointStore
from ssl_dc.training.numerics import NumericsWatch
from ssl_dc.training.trainer import Trainer


def started(**settings: Any) -> tuple[Trainer, Told]:
    more = {key.replace("__", "."): value for key, value in settings.items()}
    return trainer_of({**TINY, **more}), Told()


def watch(**training: Any) -> tuple[NumericsWatch, list[str]]:
    said: list[str] = []
    return NumericsWatch(TrainingConfig(**training), said.append, lambda: Path("runs/a/step-2"), lambda _term: "it"), said


def spoil_loss(made: Trainer, steps: set[int]) -> None:
    """The loss of these steps (from 1) is not a number."""
    forward = made.learner.objective.forward

    def spoilt(views: EncodedViews) -> ObjectiveOutput:
        output = forward(views)
        factor = math.nan if made.step + 1 in steps else 1.0
        return ObjectiveOutput({name: term * factor for name, term in output.terms.items()}, output.embeddings)

    made.learner.objective.forward = spoilt  # type: ignore[method-assign]


def spoil_gradient(made: Trainer, steps: set[int]) -> str:
    """The gradient of one parameter is infinite in these steps; its name."""
    name, parameter = next(iter(made.learner.named_parameters()))
    parameter.register_hook(lambda gradient: gradient * (math.inf if made.step + 1 in steps else 1.0))
    return name


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_gradient_that_is_not_finite_ends_the_run_with_step_and_name(tmp_path: Path, accumulation: int) -> None:
    made, _ = started(training__checkpoint_every=1, training__accumulation=accumulation)
    name = spoil_gradient(made, {3})
    with pytest.raises(RunError, match=rf"step 3: the gradient is not finite: that of {name}\. .*step-00000002"):
        made.fit(checkpoints=CheckpointStore(tmp_path))
    assert all(bool(parameter.isfinite().all()) for parameter in made.learner.parameters())


@pytest.mark.parametrize(("spoil", "words"), [(spoil_loss, "the loss is nan"), (spoil_gradient, "the gradient is not")])
@pytest.mark.parametrize("every", [1, 5])
def test_a_step_that_is_checked_later_ends_the_run_before_it_is_saved(
    tmp_path: Path, spoil: Any, words: str, every: int
) -> None:
    """As on a GPU, which is not waited for. The step is named as ever, and no resume point holds it."""
    made, _ = started(training__checkpoint_every=every, training__log_every=8)
    made._checks_late = True
    spoil(made, {5})
    with pytest.raises(RunError, match=rf"step 5: {words}.* Last resume point: .*step-00000004"):
        made.fit(checkpoints=CheckpointStore(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("several", [False, True])
def test_checking_and_reading_later_changes_no_bit(several: bool) -> None:
    """As on a GPU: what a step measured is told after the next step, or before the run saves."""
    states, told = [], []
    for late in (False, True):
        made, each = started(training__log_every=3, budget__target="0.3:0.7" if several else 0.3)
        made._checks_late = late
        made.fit(watchers=[each])
        states.append(made.learner.state_dict())
        told.append(each)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    values = [[(metrics.step, metrics.epoch, list(metrics.values.items())) for metrics in each.metrics] for each in told]
    assert values[0] == values[1]
    at_once, later = (each.events for each in told)
    assert at_once.index(("metrics", 3)) < at_once.index(("step", 3))
    assert later.index(("step", 3)) < later.index(("metrics", 3)) < later.index(("step", 4))
    assert later.index(("metrics", 8)) < later.index(("step", 8))


@pytest.mark.parametrize("largest", [1024, 1])
def test_a_step_that_is_read_later_and_not_finite_is_told_as_such(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    """And not by what its eigenvalues raise, whether the CPU or the GPU is to find them."""
    monkeypatch.setattr("ssl_dc.training.step_metrics.LARGEST_LATE", largest)
    made, told = started(training__log_every=3)
    made._checks_late = True
    forward = made.learner.objective.forward

    def spoilt(views: EncodedViews) -> ObjectiveOutput:
        output = forward(views)
        factor = math.nan if made.step == 2 else 1.0
        embeddings = tuple(embedding * factor for embedding in output.embeddings)
        return ObjectiveOutput({name: term * factor for name, term in output.terms.items()}, embeddings)

    made.learner.objective.forward = spoilt  # type: ignore[method-assign]
    with pytest.raises(RunError, match="step 3: the loss is nan"):
        made.fit(watchers=[told])
    assert told.metrics == []


@pytest.mark.parametrize("action", ["skip", "stop"])
def test_the_last_step_is_told_also_where_it_ends_no_epoch(action: str) -> None:
    made, told = started(training__log_every=5, training__on_not_finite=action)
    made._checks_late = action == "stop"
    made.total_steps = 7
    made.fit(watchers=[told])
    assert [metrics.step for metrics in told.metrics] == [5, 7]


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])
def test_steps_that_are_not_finite_can_be_left_out_and_change_nothing(spoil: Any) -> None:
    made, told = started(training__on_not_finite="skip")
    spoil(made, {3, 5})
    states: dict[int, dict[str, Tensor]] = {}

    class Look(Watcher):
        def on_step_end(self, step: int) -> None:
            states[step] = {name: value.clone() for name, value in made.learner.state_dict().items()}

    made.fit(watchers=[told, Look()])
    (message,) = told.messages
    assert message.startswith("step 3: ")
    assert "This update is skipped; so is any later non-finite one." in message
    assert [metrics.step for metrics in told.metrics] == [1, 2, 4, 6, 7, 8]
    for spoilt in (3, 5):
        assert all(torch.equal(value, states[spoilt - 1][name]) for name, value in states[spoilt].items())
        assert any(not torch.equal(value, states[spoilt][name]) for name, value in states[spoilt + 1].items())
    assert all(bool(value.isfinite().all()) for value in states[8].values())


@pytest.mark.long
def test_watching_for_what_can_be_left_out_changes_no_bit(tmp_path: Path) -> None:
    ssl_dc.train(TWO_BY_TWO, output=tmp_path / "stop")
    ssl_dc.train({**TWO_BY_TWO, "training.on_not_finite": "skip"}, output=tmp_path / "skip")
    assert_same_files(tmp_path / "stop", tmp_path / "skip", "model.safetensors", "metrics.jsonl")


def test_a_large_gradient_is_finite() -> None:
    numerics, said = watch()
    parameter = nn.Parameter(torch.zeros(1000))
    parameter.grad = torch.full((1000,), 3e38)  # its Euclidean norm would not be
    assert numerics.gradient(1, [("p", parameter)])
    assert numerics.gradient(1, [("unused", nn.Parameter(torch.zeros(2)))])
    assert said == []


def test_a_loss_scale_below_one_is_told() -> None:
    numerics, _ = watch()
    numerics.loss_scale(4, 1.0)
    with pytest.raises(RunError, match="step 5: the gradients are not finite at any scale of the loss"):
        numerics.loss_scale(5, 0.5)


COLLAPSED = [torch.zeros(8, 4), torch.full((8, 4), 3.0), 5 + 1e-4 * torch.randn(8, 4)]
HEALTHY = [
    torch.randn(8, 4),
    1e-6 * torch.randn(8, 4),
    10 + torch.randn(8, 4),
    nn.functional.normalize(torch.randn(64, 2048)),
]


def spread_and_size(embedding: Tensor) -> tuple[float, float]:
    return float(embedding.std(dim=0).mean()), float(embedding.square().mean().sqrt())


@pytest.mark.parametrize("embedding", COLLAPSED)
def test_a_collapsed_embedding_is_told_once(embedding: Tensor) -> None:
    numerics, said = watch()
    numerics.embedding(7, *spread_and_size(embedding))
    numerics.embedding(8, *spread_and_size(embedding))
    (message,) = said
    assert message.startswith("step 7: the embedding has collapsed")
    stops, _ = watch(on_collapse="stop")
    with pytest.raises(RunError, match=r"step 7: the embedding has collapsed.*Last resume point: runs/a/step-2"):
        stops.embedding(7, *spread_and_size(embedding))


@pytest.mark.parametrize("embedding", HEALTHY)
def test_an_embedding_of_any_scale_is_no_collapse(embedding: Tensor) -> None:
    numerics, said = watch(on_collapse="stop")
    numerics.embedding(1, *spread_and_size(embedding))
    assert said == []


@pytest.mark.parametrize("gating", ["dgnet", "convnet_aig"])
@pytest.mark.parametrize(("shift", "word"), [(1e6, "shut"), (-1e6, "open")])
def test_gates_that_are_all_alike_are_told_once_and_may_end_the_run(gating: str, shift: float, word: str) -> None:
    def stuck(made: Trainer) -> None:
        set_threshold(made.learner.encoder, shift)
        assert gates_of(made.learner.encoder)

    settings: dict[str, Any] = {"gating__name": gating, "budget__control": "penalty"}
    made, told = started(**settings)
    stuck(made)
    made.fit(watchers=[told])
    (message,) = told.messages
    assert message.startswith(f"step 1: every gate is {word}, for every image")
    made, _ = started(**settings, training__on_stuck_gates="stop")
    stuck(made)
    with pytest.raises(RunError, match=f"step 1: every gate is {word}"):
        made.fit()


def test_gates_may_all_be_open_where_the_whole_cost_may_be_paid() -> None:
    made, told = started(budget__target=1.0, budget__control="penalty")
    set_threshold(made.learner.encoder, -1e6)
    made.fit(watchers=[told])
    assert told.messages == []


def test_a_run_that_learns_is_told_nothing() -> None:
    made, told = started(training__on_collapse="stop", training__on_stuck_gates="stop")
    made.fit(watchers=[told])
    assert told.messages == []
