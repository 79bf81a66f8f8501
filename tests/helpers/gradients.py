"""Gradients of a compiled pass beside those of the uncompiled one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from helpers.settings import config_of
from helpers.training import trainer_of
from ssl_dc.routes import Route
from ssl_dc.training.compiled_forward import CompiledForward


def compare_gradients(settings: Mapping[str, Any], passes: int, graphs: bool) -> None:
    """Compare the gradient of the sum of all loss terms, for several batches of noise, by its norm.

    Args:
        settings: Of the training. Gates must not draw noise.
        passes: How many batches.
        graphs: Whether CUDA graphs are recorded.
    """
    trainer = trainer_of(settings)
    device, size = trainer.accelerator.device, config_of(settings).data.image_size
    compiled = CompiledForward(trainer.wrapped, graphs, pytest.fail)
    routes = (Route.GATED, Route.DENSE)

    def gradient(forward: Any, views: list[torch.Tensor]) -> torch.Tensor:
        trainer.optimizer.zero_grad()
        terms = forward(views, routes).objective.terms.values()
        torch.stack(list(terms)).sum().backward()
        return torch.cat([p.grad.flatten() for p in trainer.learner.parameters() if p.grad is not None])

    generator = torch.Generator(device).manual_seed(0)
    for _ in range(passes):
        views = [torch.randn(64, 3, size, size, device=device, generator=generator) for _ in routes]
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        expected = gradient(trainer.wrapped, views)
        found = gradient(compiled, views)
        assert expected.norm() > 0
        assert (found - expected).norm() < 1e-3 * expected.norm()
