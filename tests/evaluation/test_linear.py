"""Linear evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ssl_dc.evaluation import linear
from ssl_dc.evaluation.linear import linear_accuracy

Set = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def blobs(n: int, classes: int = 4, spread: float = 0.05, seed: int = 0) -> Set:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.eye(classes, 8)
    return (centres[labels] + spread * rng.normal(size=(n, 8))).astype(np.float32), labels


def accuracy(train: Set, test: Set, **settings: int) -> float:
    return linear_accuracy(*train, *test, **{"classes": 4, **settings})


def test_separable_classes_are_separated() -> None:
    assert accuracy(blobs(200), blobs(100, seed=1)) == 100


def test_labels_without_meaning_are_not_learned() -> None:
    features, labels = blobs(200, spread=1.0)
    test_features, _ = blobs(2000, spread=1.0, seed=1)
    rng = np.random.default_rng(2)
    answers = rng.integers(0, 4, 2000)
    assert accuracy((features, rng.permutation(labels)), (test_features, answers)) == pytest.approx(25, abs=5)


def test_the_seed_decides_and_nothing_else_does() -> None:
    train, test = blobs(64, spread=0.8), blobs(999, spread=0.8, seed=1)
    reached = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(len(reached))
        reached.append(accuracy(train, test, seed=seed, epochs=2, batch_size=16))
    assert reached[0] == reached[1]
    assert len(set(reached)) > 1


class Recording(nn.Linear):
    """Remembers its inputs in training."""

    seen: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            Recording.seen.append(x.detach())
        return super().forward(x)


def test_every_epoch_sees_each_feature_once_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Recording.seen = []
    monkeypatch.setattr(linear.nn, "Linear", Recording)
    features, labels = blobs(10)
    accuracy((features, labels), blobs(4), epochs=2, batch_size=4)
    assert [len(batch) for batch in Recording.seen] == [4, 4, 2, 4, 4, 2]
    epochs = [torch.cat(Recording.seen[:3]), torch.cat(Recording.seen[3:])]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == sorted(features.tolist())
    assert not torch.equal(*epochs)


def test_optimiser_and_schedule_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    groups: list[dict[str, float]] = []
    original = torch.optim.SGD.step

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        rates.append(self.param_groups[0]["lr"])
        groups.append(self.param_groups[0])
        original(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    accuracy(blobs(4), blobs(4))
    assert rates == pytest.approx([0.3] * 60 + [0.03] * 20 + [0.003] * 20)
    assert {(group["momentum"], group["weight_decay"], group["nesterov"]) for group in groups} == {(0.9, 0, False)}
    rates.clear()
    accuracy(blobs(4), blobs(4), epochs=10)
    assert rates == pytest.approx([0.3] * 6 + [0.03] * 2 + [0.003] * 2)


def test_the_last_epoch_is_reported_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.optim.SGD.step
    steps = 0

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        nonlocal steps
        steps += 1
        original(self, closure)
        if steps == 30:  # one batch an epoch: spoils what all before have learned
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.mul_(-1)

    train, test = blobs(40), blobs(40, seed=1)
    assert accuracy(train, test, epochs=29) == 100
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert accuracy(train, test, epochs=30) < 50


def test_classes_are_counted_by_the_data_set_not_by_the_labels() -> None:
    train, test = blobs(40, classes=3), blobs(40, classes=3, seed=1)
    assert accuracy(train, test, classes=10) == 100
