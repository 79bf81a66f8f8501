"""What a training run reports at its end: kNN of both routes on held-out images, the untrained network's, and the cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssl_dc.config import RunConfig
from ssl_dc.data.base import Splits
from ssl_dc.evaluation.protocols import Evaluation, extract_splits, knn
from ssl_dc.model import Model


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        trained: kNN-1 of the trained model.
        untrained: kNN-1 of the network that training started from.
        dense_macs: Cost of the dense route, for one image.
        budget: What was asked for, as a share of the dense cost; None without gates.
    """

    trained: Evaluation
    untrained: Evaluation
    dense_macs: int
    budget: float | None

    def as_json(self) -> dict[str, Any]:
        """The outcome as plain values, as in ``result.json``."""
        routes = {
            str(route): {
                "knn1": round(score.top1, 4),
                "knn1_untrained": round(self.untrained.routes[route].top1, 4),
                "macs": round(score.macs),
                "ratio": score.ratio,
            }
            for route, score in self.trained.routes.items()
        }
        return {
            "routes": routes,
            "dense_macs": self.dense_macs,
            "budget": self.budget,
            "train_images": self.trained.train_images,
            "test_images": self.trained.test_images,
        }


def outcome(config: RunConfig, model: Model, splits: Splits) -> Outcome:
    """Evaluate a trained model and the one it started from."""
    workers = config.training.workers
    untrained = Model.untrained(config)
    untrained.encoder.to(next(model.encoder.parameters()).device)
    return Outcome(
        trained=knn(extract_splits(model, splits, workers=workers)),
        untrained=knn(extract_splits(untrained, splits, workers=workers)),
        dense_macs=model.cost.dense_macs,
        budget=config.budget.target,
    )
