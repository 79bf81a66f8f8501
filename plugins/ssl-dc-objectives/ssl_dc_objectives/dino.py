"""DINO (Caron et al. 2021): the student learns the soft classes that a momentum teacher gives the other view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ssl_dc
from ssl_dc_objectives.options import DINOOptions


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """H(P_t, P_s) = -P_t log P_s of each row (N,) (equation 2 of the paper).

    Args:
        student: Logits (N, K), over the temperature.
        teacher: Logits (N, K), centred, over the temperature. They get no gradient.
    """
    return -(teacher.detach().softmax(dim=1) * student.log_softmax(dim=1)).sum(dim=1)


def teacher_temperature(progress: Tensor, options: DINOOptions) -> Tensor:
    """The teacher's temperature: linear from its start to its end within the warm-up, then constant.

    Args:
        progress: The share of training done, a scalar in [0, 1].
        options: The two temperatures, and the share of training that warms up.
    """
    done = (progress / options.warmup_share).clamp(max=1) if options.warmup_share else torch.ones_like(progress)
    return options.warmup_temperature + done * (options.teacher_temperature - options.warmup_temperature)


class Head(nn.Module):
    """DINO's head: three layers with GELU, scaling to length 1, and a linear layer whose rows are scaled to length 1.

    The last layer is the authors' weight-normalised one, with norms fixed at 1. So the logits are cosines (section 3,
    "Network architecture").

    Args:
        options: Widths.
        feature_dim: Width of the features.
    """

    def __init__(self, options: DINOOptions, feature_dim: int) -> None:
        super().__init__()
        hidden, bottleneck = options.hidden_width, options.bottleneck_width
        self.layers = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Linear(bottleneck, options.width, bias=False)

    def embed(self, features: Tensor) -> Tensor:
        """The bottleneck (N, bottleneck_width) of features (N, feature_dim), rows of length 1."""
        return F.normalize(self.layers(features), dim=1)

    def classify(self, embedding: Tensor) -> Tensor:
        """The logits (N, K) of a bottleneck, in [-1, 1]."""
        return F.linear(embedding, F.normalize(self.prototypes.weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """The logits (N, K) of features (N, feature_dim)."""
        return self.classify(self.embed(features))


class DINO(ssl_dc.Objective):
    """The objective ``dino``: cross-entropy of each view of the student with each other view of the teacher.

    P_s = softmax(g_s / student temperature), P_t = softmax((g_t - center) / teacher temperature). The teacher sees global
    views only, the student all views. The mean is taken over all pairs of different views (equation 3, algorithm 1). The
    teacher is a momentum copy of encoder and head. The center follows the mean of the teacher's logits over the global
    batch (equation 4).

    Args:
        options: Widths, temperatures, momentum, route of the teacher.
        feature_dim: Width of the features.
    """

    views: ClassVar[int | None] = None
    center: Tensor
    progress: Tensor

    def __init__(self, options: DINOOptions, feature_dim: int) -> None:
        super().__init__()
        self.options = options
        self.head = Head(options, feature_dim)
        self.teacher = ssl_dc.MomentumTarget(options)
        self.register_buffer("center", torch.zeros(options.width))
        self.register_buffer("progress", torch.zeros(()))

    @property
    def weights(self) -> Mapping[str, float]:
        """One term. It is log K where student and teacher guess."""
        return {"cross_entropy": 1.0}

    def bind(self, encoder: ssl_dc.Encoder) -> None:
        """Make the teacher, which equals the student at first."""
        self.teacher.bind(encoder, self.head)

    def forward(self, views: ssl_dc.EncodedViews) -> ssl_dc.ObjectiveOutput:
        """The term of two or more views with features (N, feature_dim). The embeddings are the student's bottleneck.

        Raises:
            ConfigError: If only one of the views is global. The teacher would have no other view to teach it by.
        """
        if views.global_count < 2:
            raise ssl_dc.ConfigError(
                "objective dino takes two global views or more, and gets 1: raise views.global_count and add a route"
            )
        seen = min(self.options.teacher_views, views.global_count)
        teacher = self.teacher(views.images[:seen], views.routes[:seen])
        embeddings = [self.head.embed(features) for features in views.features]
        student = [self.head.classify(z) for z in embeddings]
        with torch.autocast(embeddings[0].device.type, enabled=False):
            losses = self._losses([g.float() for g in student], [g.float() for g in teacher])
            terms = {"cross_entropy": ssl_dc.gather_batch(losses).mean()}
            if self.training:
                self._move_center(torch.cat(teacher).float())
        return ssl_dc.ObjectiveOutput(terms, embeddings)

    def after_step(self, encoder: ssl_dc.Encoder, progress: float) -> None:
        """Move the teacher towards the student, and its temperature along its warm-up."""
        self.teacher.follow(encoder, self.head, progress)
        self.progress.fill_(progress)

    def _losses(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The cross-entropy of each image (N,), the mean over the pairs of different views."""
        temperature = teacher_temperature(self.progress, self.options)
        pairs = [
            cross_entropy(guess / self.options.student_temperature, (target - self.center.float()) / temperature)
            for number, guess in enumerate(student)
            for other, target in enumerate(teacher)
            if number != other
        ]
        return torch.stack(pairs).mean(dim=0)

    @torch.no_grad()
    def _move_center(self, logits: Tensor) -> None:
        """Move the center towards the mean of the teacher's logits (N, K), over the batches of all processes."""
        mean = ssl_dc.gather_batch(logits.mean(dim=0, keepdim=True)).mean(dim=0)
        self.center.lerp_(mean.to(self.center.dtype), 1 - self.options.center_momentum)
