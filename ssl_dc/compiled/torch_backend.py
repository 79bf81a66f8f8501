"""The backend that runs a plan with torch alone: slower than the compiled kernel, and available everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_dc.compiled.eager import EagerRun
from ssl_dc.compiled.plan import Plan
from ssl_dc.compiled.precisions import FLOAT32
from ssl_dc.errors import RunError

IMAGES_AT_ONCE = 32
"""Images whose activations are held in memory at once."""


class TorchBackend:
    """Computes each image with torch's own operators."""

    name = "torch"
    device = "cpu"
    precisions: tuple[str, ...] = (FLOAT32,)

    def unavailable(self) -> str:
        """Torch is always there."""
        return ""

    def build(self, plan: Plan, threads: int) -> TorchRunner:  # noqa: ARG002  # torch has its own setting of threads
        """A runner of this plan."""
        return TorchRunner(plan)


class TorchRunner:
    """A plan run by torch.

    Args:
        plan: The plan.

    Attributes:
        plan: The plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, feature_dim) and open entries (N, entries of all masks) of images (N, 3, H, W)."""
        if not len(images):
            features, opened = self._run(torch.zeros(1, *images.shape[1:]))
            return features[:0], opened[:0]
        runs = [self._run(chunk) for chunk in images.split(IMAGES_AT_ONCE)]
        return torch.cat([features for features, _ in runs]), torch.cat([opened for _, opened in runs])

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        run = EagerRun(self.plan)
        features = run(images)
        masks = [run.masks[site.name] for site in self.plan.sites]
        return features, torch.cat(masks, dim=1).to(torch.uint8) if masks else torch.empty(
            len(images), 0, dtype=torch.uint8
        )

    def budget_changed(self) -> None:
        """Nothing: each call asks the gates anew."""

    def seconds(self, image: Tensor) -> Tensor:  # noqa: ARG002
        """Torch keeps no times of single steps.

        Raises:
            RunError: Always.
        """
        raise RunError("the torch backend does not time single steps; the native one does")

    def whole_plan(self) -> Plan:
        """The plan with its weights."""
        return self.plan
