"""DINO against plain statements of the paper's equations: loss, center, temperatures, teacher."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from stated import SMALL, Array, assert_gradients, differences, tensors
from torch import Tensor, nn

import ssl_dc
from ssl_dc.testing import conformance
from ssl_dc_objectives.dino import DINO, Head, teacher_temperature
from ssl_dc_objectives.options import DINOOptions

test_dino = conformance("objective", "dino", settings=SMALL["dino"])
test_dino_with_a_teacher_of_the_same_route = conformance(
    "objective", "dino", settings={**SMALL["dino"], "target_route": "same"}
)

OPTIONS = DINOOptions(**SMALL["dino"])
STUDENT, TEACHER = 0.1, 0.04


def bound(options: DINOOptions = OPTIONS) -> tuple[ssl_dc.Encoder, DINO]:
    """A small network and the objective in float64. The student has moved away from the teacher."""
    torch.manual_seed(0)
    config = {"backbone": {"name": "resnet18", "width": 4, "stem": "cifar"}, "data": {"name": "digits"}}
    encoder = ssl_dc.Model.untrained(ssl_dc.RunConfig.model_validate(config)).encoder.double()
    objective = DINO(options, encoder.feature_dim).double()
    objective.bind(encoder)
    with torch.no_grad():
        for p in objective.head.parameters():
            p += 0.3 * torch.randn_like(p)
        objective.center += 0.2 * torch.randn_like(objective.center)
    return encoder, objective


def images_of(views: int = 2) -> list[Tensor]:
    return list(torch.randn(views, 5, 3, 12, 12, dtype=torch.float64))


def multi_crop(global_count: int, local_count: int) -> list[Tensor]:
    """Global views of 12 px, then local ones of 8 px."""
    local = torch.randn(local_count, 5, 3, 8, 8, dtype=torch.float64)
    return [*images_of(global_count), *local]


def features_of(encoder: ssl_dc.Encoder, views: int = 2) -> list[Array]:
    generator = np.random.default_rng(1)
    return [generator.normal(size=(5, encoder.feature_dim)) for _ in range(views)]


def encoded(images: list[Tensor], features: list[Tensor]) -> ssl_dc.EncodedViews:
    return ssl_dc.EncodedViews(images, features, [ssl_dc.Route.DENSE] * len(images))


def plain_head(head: nn.Module, features: Array) -> Array:
    """Three linear layers with GELU between, length 1, cosines with the prototypes."""
    assert isinstance(head, Head)
    x = features
    for number, layer in enumerate([layer for layer in head.layers if isinstance(layer, nn.Linear)]):
        if number:
            x = np.vectorize(lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2)(x)
        x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    prototypes = head.prototypes.weight.detach().numpy()
    return np.array([[u @ p / math.sqrt((u @ u) * (p @ p)) for p in prototypes] for u in x])


def softmax(logits: Array) -> Array:
    powers = [math.exp(value) for value in logits]
    return np.array(powers) / sum(powers)


def plain_loss(student: list[Array], teacher: list[Array], center: Array) -> float:
    """Equation 3: each view of the student with each other view of the teacher, image by image."""
    losses = []
    for i, guesses in enumerate(student):
        for j, targets in enumerate(teacher):
            for guess, target in zip(guesses, targets, strict=True) if i != j else ():
                p, q = softmax((target - center) / TEACHER), softmax(guess / STUDENT)
                losses.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
    return sum(losses) / len(losses)


def teacher_logits(objective: DINO, images: list[Tensor]) -> list[Array]:
    """The plain head of the teacher, on the features of its own encoder."""
    encoder, head = objective.teacher.encoder, objective.teacher.head
    assert encoder is not None
    assert head is not None
    with torch.no_grad():
        return [plain_head(head, encoder(view, ssl_dc.Route.DENSE).features.numpy()) for view in images]


@pytest.mark.parametrize("views", [2, 3])
def test_loss_is_that_of_the_equation(views: int) -> None:
    encoder, objective = bound()
    images, features = images_of(views), features_of(encoder, views)
    student = [plain_head(objective.head, each) for each in features]
    expected = plain_loss(student, teacher_logits(objective, images[:2]), objective.center.numpy().copy())
    (name, term), *more = objective(encoded(images, tensors(features))).terms.items()
    assert (name, more) == ("cross_entropy", [])
    assert term.item() == pytest.approx(expected, rel=1e-4)
    assert expected > 0.5


@pytest.mark.parametrize(("global_count", "local_count"), [(2, 1), (2, 3), (3, 1)])
def test_the_teacher_sees_global_views_only_and_the_student_all(global_count: int, local_count: int) -> None:
    """Two views of the teacher at most, as in the paper; of each pair the views differ."""
    encoder, objective = bound()
    images, features = multi_crop(global_count, local_count), features_of(encoder, global_count + local_count)
    student = [plain_head(objective.head, each) for each in features]
    seen = images[:2]
    sizes: list[int] = []
    assert objective.teacher.encoder is not None
    objective.teacher.encoder.register_forward_pre_hook(lambda _m, words: sizes.append(words[0].shape[2]))
    teacher, center = teacher_logits(objective, seen), objective.center.numpy().copy()
    sizes.clear()
    leaves = tensors(features)
    term = objective(encoded(images, leaves)).terms["cross_entropy"]
    assert sizes == [12] * len(seen)
    assert term.item() == pytest.approx(plain_loss(student, teacher, center), rel=1e-4)
    mean = np.concatenate(teacher).mean(axis=0)
    np.testing.assert_allclose(objective.center.numpy(), 0.9 * center + 0.1 * mean, rtol=1e-5, atol=1e-7)
    term.backward()

    def loss(moved: list[Array]) -> float:
        return plain_loss([plain_head(objective.head, each) for each in moved], teacher, center)

    if (global_count, local_count) == (2, 1):  # differences take long
        assert_gradients(leaves, differences(loss, features))


def test_gradient_is_that_of_the_equation_with_the_teacher_held_still() -> None:
    encoder, objective = bound()
    images, features = images_of(), features_of(encoder)
    teacher, center, leaves = teacher_logits(objective, images), objective.center.numpy().copy(), tensors(features)
    objective(encoded(images, leaves)).terms["cross_entropy"].backward()

    def loss(moved: list[Array]) -> float:
        return plain_loss([plain_head(objective.head, each) for each in moved], teacher, center)

    assert_gradients(leaves, differences(loss, features))
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert all(p.grad is not None for p in objective.head.parameters())


def test_the_center_follows_the_teachers_logits_after_they_were_used_and_only_in_training() -> None:
    encoder, objective = bound()
    images, features = images_of(), tensors(features_of(encoder))
    before = objective.center.numpy().copy()
    mean = np.concatenate(teacher_logits(objective, images)).mean(axis=0)
    objective(encoded(images, features))
    np.testing.assert_allclose(objective.center.numpy(), 0.9 * before + 0.1 * mean, rtol=1e-5, atol=1e-7)
    objective.eval()
    still = objective.center.clone()
    objective(encoded(images, features))
    assert torch.equal(objective.center, still)


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)])
def test_the_teachers_temperature_warms_up_linearly_and_then_stays(progress: float, expected: float) -> None:
    assert teacher_temperature(torch.tensor(progress), OPTIONS).item() == pytest.approx(expected, rel=1e-6)
    at_once = DINOOptions(warmup_share=0)
    assert teacher_temperature(torch.tensor(progress), at_once).item() == pytest.approx(0.07)


def test_a_step_moves_teacher_and_temperature() -> None:
    encoder, objective = bound(DINOOptions(**SMALL["dino"], momentum=0.5))
    before = [p.clone() for p in objective.teacher.parameters()]
    network = [p.detach().clone() for p in (*encoder.parameters(), *objective.head.parameters())]
    objective.after_step(encoder, progress=0.15)
    share = 1 - 0.5 * (math.cos(math.pi * 0.15) + 1) / 2
    for own, old, new in zip(objective.teacher.parameters(), before, network, strict=True):
        torch.testing.assert_close(own.detach(), share * old + (1 - share) * new)
    assert teacher_temperature(objective.progress, OPTIONS).item() == pytest.approx(0.055)
    assert {"center", "progress"} < set(objective.state_dict())
