"""A training whose forward pass torch compiles: the same numbers, and an end in words where torch cannot."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.gradients import compare_gradients
from helpers.settings import TINY
from helpers.training import Told, trainer_of
from ssl_dc.optimizers.fused import fuse
from ssl_dc.optimizers.lars import LARS
from ssl_dc.trackers.base import COMPILING
from ssl_dc.training.checkpoint import optimizer_tensors, restore_optimizer

SETTINGS = {**TINY, "training.epochs": 1, "training.log_every": 1}


def trained(**settings: Any) -> Told:
    told = Told()
    trainer_of({**SETTINGS, **settings}).fit(watchers=[told])
    return told


class Phases(Told):
    """Notes at which steps, from 1, torch compiles."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        self.compiling: list[int] = []

    def on_step_end(self, step: int) -> None:
        self.taken = step

    def on_phase(self, name: str) -> None:
        if name == COMPILING:
            self.compiling.append(self.taken + 1)


def compile_by(monkeypatch: pytest.MonkeyPatch, backend: str | Callable[..., Any]) -> None:
    """Compile without the code generator, which takes minutes."""
    torch._dynamo.reset()
    compile_ = torch.compile

    def quickly(module: torch.nn.Module, *, dynamic: bool, mode: str | None) -> Any:
        assert mode is None, "CUDA graphs on a CPU"
        return compile_(module, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(torch, "compile", functools.wraps(compile_)(quickly))


@pytest.mark.long
@pytest.mark.parametrize(
    "settings", [{"budget.target": "0.3,0.6"}, {"training.distillation": 2.0}], ids=["budgets", "distilled"]
)
def test_a_compiled_training_is_the_uncompiled_one(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    compile_by(monkeypatch, "eager")
    plain = trained(**settings)
    logger = logging.getLogger("torch.utils.cpp_extension")  # warns of a CUDA_HOME without a GPU, and of nothing else
    monkeypatch.setattr(logger, "level", logging.WARNING)
    compiled = trained(**settings, **{"training.compile": True})
    assert not logger.isEnabledFor(logging.WARNING)
    assert len(plain.values("loss")) > 2
    assert compiled.values("loss") == plain.values("loss")
    assert any("torch compiles the network" in text for text in compiled.messages)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


@pytest.mark.long
def test_the_step_that_is_compiled_is_told_and_counts_for_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by(monkeypatch, "eager")
    told = Phases()
    trainer_of({**SETTINGS, "training.compile": True}).fit(watchers=[told])
    assert told.compiling == [2], "the first is looked at, and is not compiled"
    speeds = {metrics.step: metrics.images_per_second for metrics in told.metrics}
    assert speeds[2] == 0.0, "not known"
    assert speeds[3] > 0.0


@pytest.mark.long
def test_what_torch_cannot_compile_trains_uncompiled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        raise RuntimeError("no compiler here")

    plain = trained()
    compile_by(monkeypatch, refuses)
    refused = trained(**{"training.compile": True})
    assert refused.values("loss") == plain.values("loss")
    told = [text for text in refused.messages if "cannot compile" in text]
    assert len(told) == 1
    assert "no compiler here" in told[0]


def moved_twice(first_fused: bool, then_fused: bool) -> torch.Tensor:
    """Parameters after three steps of AdamW and, from its resume point, three more. Either part may be fused."""
    torch.manual_seed(0)
    net = torch.nn.Linear(5, 3)
    tensors: dict[str, torch.Tensor] = {}
    for fused in (first_fused, then_fused):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        if fused:
            fuse(optimizer)
        assert [group["fused"] for group in optimizer.param_groups] == [fused or None]
        if tensors:
            restore_optimizer(optimizer, tensors)
        for _ in range(3):
            net(torch.randn(4, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tensors = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("first", "then"), [(True, True), (True, False), (False, True)])
def test_a_fused_optimizer_moves_as_the_other_and_resume_points_serve_both(first: bool, then: bool) -> None:
    torch.testing.assert_close(moved_twice(first, then), moved_twice(False, False), rtol=1e-5, atol=1e-6)


def test_an_optimizer_that_is_not_torchs_or_was_told_its_kernels_is_not_fused() -> None:
    net = torch.nn.Linear(2, 2)
    told = torch.optim.AdamW(net.parameters(), foreach=True)
    lars = LARS([{"params": list(net.parameters())}], lr=0.1, momentum=0.9, weight_decay=0.0, trust=0.02)
    for optimizer in (told, lars):
        fuse(optimizer)
        assert not any(group.get("fused") for group in optimizer.param_groups)


@pytest.mark.slow
def test_the_gradients_of_a_compiled_pass_are_those_of_the_uncompiled_one() -> None:
    torch._dynamo.reset()
    compare_gradients({**TINY, "gating.noise": 0.0}, passes=2, graphs=False)
