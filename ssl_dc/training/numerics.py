"""Watching the numbers of a training: what is not finite, an embedding that has collapsed, gates that are all alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.errors import RunError
from ssl_dc.gating.cost import Trace

COLLAPSED = 1e-3
"""Standard deviation of an embedding, as a share of its root mean square, below which all images are the same to it."""


class NumericsWatch:
    """Looks at what a step gave; tells each kind of trouble once, with its step, and ends the run where the config says so.

    Args:
        training: What is to be done about which trouble.
        tell: Tells the user.
        resume_point: Gives the newest resume point, for messages; None if there is none.
    """

    def __init__(
        self, training: TrainingConfig, tell: Callable[[str], None], resume_point: Callable[[], Path | None]
    ) -> None:
        self._training = training
        self._tell, self._resume_point = tell, resume_point
        self._told: set[str] = set()

    def loss(self, step: int, loss: Tensor, terms: Mapping[str, Tensor]) -> bool:
        """Whether the loss of a step (from 1) is finite.

        Raises:
            RunError: If it is not, and that is to end the run.
        """
        if math.isfinite(loss.item()):
            return True
        bad = [name for name, value in terms.items() if not math.isfinite(value.item())]
        self._not_finite(step, f"the loss is {loss.item()}; not finite: {', '.join(bad) or 'the sum'}")
        return False

    def gradient(self, step: int, parameters: Iterable[tuple[str, nn.Parameter]]) -> bool:
        """Whether the gradients of a step are finite.

        Raises:
            RunError: If one is not, and that is to end the run.
        """
        named = [(name, parameter.grad) for name, parameter in parameters if parameter.grad is not None]
        if not named:
            return True
        largest = torch.stack([torch.linalg.vector_norm(gradient.detach(), ord=math.inf).float() for _, gradient in named])
        finite = largest.isfinite()
        if bool(finite.all()):
            return True
        bad = [name for (name, _), fine in zip(named, finite.tolist(), strict=True) if not fine]
        more = f" and of {len(bad) - 1} more" if len(bad) > 1 else ""
        self._not_finite(step, f"the gradient is not finite: that of {bad[0]}{more}")
        return False

    def loss_scale(self, step: int, scale: float) -> None:
        """Look at the scale of the loss under fp16, which is halved at each step whose gradients are not finite.

        Raises:
            RunError: If gradients would not be finite at a scale of 1 either, and that is to end the run.
        """
        if scale < 1:
            self._not_finite(step, f"the gradients are not finite, however the loss is scaled (now by {scale:g})")

    def embedding(self, step: int, embedding: Tensor) -> None:
        """Look at the embedding (N, D) of a step.

        Raises:
            RunError: If it has collapsed, and that is to end the run.
        """
        values = embedding.detach().float()
        spread, size = values.std(dim=0).mean().item(), values.square().mean().sqrt().item()
        if spread <= COLLAPSED * size:
            text = f"the embedding has collapsed: its standard deviation is {spread:.3g}, so all images are the same to it"
            self._report("collapse", step, text, self._training.on_collapse)

    def gates(self, step: int, traces: Sequence[Trace], budget: float) -> None:
        """Look at the masks of a step's gated views, of a network that may cost a share of the dense cost.

        Raises:
            RunError: If all gates are shut, or open without having been asked for, and that is to end the run.
        """
        masks = [mask.detach() for trace in traces for mask in trace.masks.values()]
        if not masks:
            return
        if not any(bool(mask.any()) for mask in masks):
            self._report("shut", step, "every gate is shut, for every image", self._training.on_stuck_gates)
        elif budget < 1 and all(bool(mask.all()) for mask in masks):
            self._report("open", step, "every gate is open, for every image", self._training.on_stuck_gates)

    def _not_finite(self, step: int, text: str) -> None:
        self._report("not finite", step, text, self._training.on_not_finite, advice=" A lower optimizer.lr often helps.")

    def _report(self, kind: str, step: int, text: str, action: str, advice: str = "") -> None:
        if action == "stop":
            kept = self._resume_point() or "there is none"
            raise RunError(f"step {step}: {text}. Last resume point: {kept}.{advice}")
        if kind not in self._told:
            self._told.add(kind)
            done = " The step's update is left out, as that of each such step." if action == "skip" else ""
            self._tell(f"step {step}: {text}.{done}{advice} This is told once.")
