"""Objectives: a contrastive one, asymmetric ones with a momentum teacher, and faulty ones."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_dc import Objective, ObjectiveOutput, Route
from ssl_dc.distributed import gather_batch
from ssl_dc.objectives.base import EncodedViews


class Contrastive(Objective):
    """Each embedding is to be nearest to that of the other view, of all in the global batch."""

    def __init__(self, options, feature_dim):
        super().__init__()
        self.options = options
        self.head = nn.Linear(feature_dim, 8)

    @property
    def weights(self):
        return {"contrastive": 1.0}

    def embeddings(self, views: EncodedViews) -> list[Tensor]:
        return [self.head(features) for features in views.features]

    def gathered(self, z: Tensor) -> Tensor:
        return gather_batch(z)

    def term(self, z1: Tensor, z2: Tensor) -> Tensor:
        logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / 0.5
        return F.cross_entropy(logits, torch.arange(len(logits)))

    def forward(self, views: EncodedViews) -> ObjectiveOutput:
        embeddings = self.embeddings(views)
        with torch.autocast("cpu", enabled=False):
            term = self.term(*(self.gathered(z.float()) for z in embeddings))
        return ObjectiveOutput({"contrastive": term}, embeddings)


class Dropping(Contrastive):
    """A head that is stochastic in training."""

    def embeddings(self, views):
        return [F.dropout(z, 0.3) for z in super().embeddings(views)]


class MomentumTeacher(Objective):
    """Predicts, from each view, what a slowly moving copy of encoder and head makes of the other (as BYOL does)."""

    def __init__(self, options, feature_dim):
        super().__init__()
        self.options = options
        self.head = nn.Linear(feature_dim, 8)
        self.predictor = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)

    @property
    def weights(self):
        return {"prediction": 2.0}

    def bind(self, encoder):
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)

    def targets(self, views: EncodedViews) -> list[Tensor]:
        with torch.no_grad():
            return [self.teacher_head(self.teacher(images, Route.DENSE).features) for images in views.images]

    def forward(self, views):
        predictions = [self.predictor(self.head(features)) for features in views.features]
        distances = [
            1 - F.cosine_similarity(prediction.float(), target.float()).mean()
            for prediction, target in zip(predictions, reversed(self.targets(views)), strict=True)
        ]
        # the mean over local batches of equal size, averaged by DDP, is that over the global one; the report is gathered
        term = torch.stack([gather_batch(distance[None]).mean() for distance in distances]).mean()
        return ObjectiveOutput({"prediction": term}, predictions)

    @torch.no_grad()
    def after_step(self, encoder, progress):
        rate = 0.1 * (1 - 0.5 * progress)
        for teacher, student in ((self.teacher, encoder), (self.teacher_head, self.head)):
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.lerp_(new, rate)


class TargetOnly(MomentumTeacher):
    """The same from the first view only: nothing is learned from the second one's features."""

    trained_views = (0,)

    def forward(self, views):
        prediction = self.predictor(self.head(views.features[0]))
        target = self.targets(views)[1]
        distance = 1 - F.cosine_similarity(prediction.float(), target.float()).mean()
        return ObjectiveOutput({"prediction": gather_batch(distance[None]).mean()}, [prediction, target])


class OfAnyViews(Contrastive):
    """Contrasts every view with the next one."""

    views = None

    def term(self, *embeddings):
        return torch.stack([super(OfAnyViews, self).term(z1, z2) for z1, z2 in pairwise(embeddings)]).sum()


class SaysAnyViews(Contrastive):
    views = None


class MisnamedTerm(Contrastive):
    @property
    def weights(self):
        return {"contrastive": 1.0, "uniformity": 0.5}


class TermOfEachImage(Contrastive):
    def term(self, z1, z2):
        logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T / 0.5
        return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")


class TermsInBf16(Contrastive):
    def forward(self, views):
        embeddings = self.embeddings(views)
        z1, z2 = (gather_batch(z) for z in embeddings)
        return ObjectiveOutput({"contrastive": -(z1 * z2).tanh().mean()}, embeddings)


class OneEmbedding(Contrastive):
    def forward(self, views):
        terms, embeddings = super().forward(views)
        return ObjectiveOutput(terms, embeddings[:1])


class UnusedHead(Contrastive):
    def __init__(self, options, feature_dim):
        super().__init__(options, feature_dim)
        self.second_head = nn.Linear(feature_dim, 8)


class DetachedView(Contrastive):
    def embeddings(self, views):
        first, second = super().embeddings(views)
        return [first, second.detach()]


class KeepsTheEncoder(Contrastive):
    def bind(self, encoder):
        self.encoder = encoder


class MovesTheEncoder(Contrastive):
    @torch.no_grad()
    def after_step(self, encoder, progress):
        for p in encoder.parameters():
            p.mul_(0.99)


class QueueNotSaved(Contrastive):
    """Keeps the last embeddings as further negatives, where no state_dict finds them."""

    def __init__(self, options, feature_dim):
        super().__init__(options, feature_dim)
        self.queue = torch.randn(4, 8)

    def term(self, z1, z2):
        logits = F.normalize(z1, dim=1) @ F.normalize(torch.cat([z2, self.queue]), dim=1).T / 0.5
        self.queue = z2[:4].detach()
        return F.cross_entropy(logits, torch.arange(len(logits)))


class StatisticsOfOneProcess(Contrastive):
    def gathered(self, z):
        return z


class BreaksTheGraph(Contrastive):
    def term(self, z1, z2):
        term = super().term(z1, z2)
        return term if term.item() > 0 else term.abs()


ExtraAllowed = Undescribed = WrongName = RequiredOption = ImportsTorch = Contrastive
ChangesOnReading = LeftOutOfTheFile = LongSummary = Contrastive
