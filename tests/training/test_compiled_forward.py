"""A training whose forward pass torch compiles: the same numbers, and an end in words where torch cannot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.gradients import compare_gradients
from helpers.settings import TINY
from helpers.training import Told, trainer_of

SETTINGS = {**TINY, "training.epochs": 1, "training.log_every": 1}


def trained(**settings: Any) -> Told:
    told = Told()
    trainer_of({**SETTINGS, **settings}).fit(watchers=[told])
    return told


def compile_by(monkeypatch: pytest.MonkeyPatch, backend: str | Callable[..., Any]) -> None:
    """Compile without the code generator, which takes minutes."""
    torch._dynamo.reset()
    compile_ = torch.compile

    def quickly(module: torch.nn.Module, *, dynamic: bool, mode: str | None) -> Any:
        assert mode is None, "CUDA graphs on a CPU"
        return compile_(module, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(torch, "compile", functools.wraps(compile_)(quickly))


def test_a_compiled_training_is_the_uncompiled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by(monkeypatch, "eager")
    settings = {"budget.target": "0.3,0.6"}
    plain = trained(**settings)
    compiled = trained(**settings, **{"training.compile": True})
    assert len(plain.values("loss")) > 2
    assert compiled.values("loss") == plain.values("loss")
    assert any("torch compiles the network" in text for text in compiled.messages)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


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


@pytest.mark.slow
def test_the_gradients_of_a_compiled_pass_are_those_of_the_uncompiled_one() -> None:
    torch._dynamo.reset()
    compare_gradients({**TINY, "gating.noise": 0.0}, passes=2, graphs=False)
