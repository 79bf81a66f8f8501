"""Watches the numbers of a training: non-finite losses and gradients, collapsed embeddings, gates that are all alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_dc.config.schema import TrainingConfig
from ssl_dc.devices import Readback
from ssl_dc.errors import RunError

StepLoss = tuple[Tensor, Mapping[str, Tensor]]
"""The loss of a micro-batch, and its terms by name."""

COLLAPSED = 1e-3
"""An embedding has collapsed if its standard deviation is at most this share of its root mean square."""


@dataclass(frozen=True)
class _LateStep:
    """A step (from 1) whose numbers are not known yet: the losses, then the largest entries of the named gradients."""

    step: int
    losses: Sequence[StepLoss]
    names: Sequence[str]
    values: Readback


class NumericsWatch:
    """Checks the numbers of a step. Each kind of trouble is reported once, or ends the run if the config says so.

    Args:
        training: Says which trouble ends the run.
        tell: Tells the user.
        resume_point: Returns the newest resume point for messages, or None.
        part_of: Says for messages which part a loss term comes from.
    """

    def __init__(
        self,
        training: TrainingConfig,
        tell: Callable[[str], None],
        resume_point: Callable[[], Path | None],
        part_of: Callable[[str], str],
    ) -> None:
        self._training, self._part_of = training, part_of
        self._tell, self._resume_point = tell, resume_point
        self._told: set[str] = set()
        self._late: _LateStep | None = None

    def loss(self, step: int, loss: Tensor, terms: Mapping[str, Tensor]) -> bool:
        """Whether the loss of a step (from 1) is finite.

        Raises:
            RunError: If it is not, and the config ends the run then.
        """
        if math.isfinite(loss.item()):
            return True
        bad = [f"{name} of {self._part_of(name)}" for name, value in terms.items() if not math.isfinite(value.item())]
        self._not_finite(step, f"the loss is {loss.item()}; not finite: {', '.join(bad) or 'the sum'}")
        return False

    def gradient(self, step: int, parameters: Iterable[tuple[str, nn.Parameter]]) -> bool:
        """Whether the gradients of a step are finite.

        Raises:
            RunError: If one is not, and the config ends the run then.
        """
        names, largest = largest_gradients(parameters)
        return self._gradients_are_finite(step, names, largest.tolist())

    def later(self, step: int, losses: Sequence[StepLoss], parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Have the losses and gradients of a step checked by the next :meth:`check_late`, so that no device is waited for.

        Only a run that ends at the first loss that is not finite may take the step before it knows.
        """
        names, largest = largest_gradients(parameters)
        of_losses = torch.stack([loss.detach().float() for loss, _ in losses])
        values = Readback(torch.cat([of_losses, largest.to(of_losses.device)]))
        self._late = _LateStep(step, losses, names, values)

    def check_late(self) -> None:
        """Check the step that :meth:`later` was last told of, if it has not been checked.

        Raises:
            RunError: If its loss or a gradient is not finite.
        """
        late, self._late = self._late, None
        if late is None:
            return
        values = late.values.read()
        for value, (loss, terms) in zip(values, late.losses, strict=False):
            if not math.isfinite(value):
                self.loss(late.step, loss, terms)
        self._gradients_are_finite(late.step, late.names, values[len(late.losses) :])

    def _gradients_are_finite(self, step: int, names: Sequence[str], largest: Sequence[float]) -> bool:
        bad = [name for name, value in zip(names, largest, strict=True) if not math.isfinite(value)]
        if not bad:
            return True
        more = f" and of {len(bad) - 1} more" if len(bad) > 1 else ""
        self._not_finite(step, f"the gradient is not finite: that of {bad[0]}{more}")
        return False

    def loss_scale(self, step: int, scale: float) -> None:
        """Check the scale of the loss under fp16. Each step with non-finite gradients halves it.

        Raises:
            RunError: If the gradients are not finite even at a scale of 1, and the config ends the run then.
        """
        if scale < 1:
            self._not_finite(step, f"the gradients are not finite at any scale of the loss (now {scale:g})")

    def embedding(self, step: int, spread: float, size: float) -> None:
        """Check that the embedding of a step has not collapsed.

        Args:
            step: Number of the step, from 1.
            spread: Mean over dimensions of the embedding's standard deviation.
            size: Root mean square of the embedding.

        Raises:
            RunError: If it has, and the config ends the run then.
        """
        if spread <= COLLAPSED * size:
            text = f"the embedding has collapsed to one point: its standard deviation is {spread:.3g}"
            self._report("collapse", step, text, self._training.on_collapse)

    def gates(self, step: int, any_open: bool, all_open: bool, budget: float) -> None:
        """Check that the gates of a step are neither all shut nor, below a budget of 1, all open.

        Raises:
            RunError: If they are, and the config ends the run then.
        """
        if not any_open:
            self._report("shut", step, "every gate is shut, for every image", self._training.on_stuck_gates)
        elif budget < 1 and all_open:
            self._report("open", step, "every gate is open, for every image", self._training.on_stuck_gates)

    def _not_finite(self, step: int, text: str) -> None:
        # The first step has no update before it, so its learning rate is not the reason.
        advice = " A lower optimizer.lr often helps." if step > 1 else ""
        self._report("not finite", step, text, self._training.on_not_finite, advice)

    def _report(self, kind: str, step: int, text: str, action: str, advice: str = "") -> None:
        if action == "stop":
            kept = self._resume_point() or "there is none"
            raise RunError(f"step {step}: {text}. Last resume point: {kept}.{advice}")
        if kind not in self._told:
            self._told.add(kind)
            done = " This update is skipped; so is any later non-finite one." if action == "skip" else ""
            self._tell(f"step {step}: {text}.{done}{advice} This is reported once.")


def largest_gradients(parameters: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[str], Tensor]:
    """The names of the parameters that have a gradient, and the largest magnitude in each gradient, (names,) float32."""
    named = [(name, parameter.grad.detach()) for name, parameter in parameters if parameter.grad is not None]
    if not named:
        return [], torch.zeros(0)
    norms = torch._foreach_norm([gradient for _, gradient in named], math.inf)
    return [name for name, _ in named], torch.stack([norm.float() for norm in norms])
