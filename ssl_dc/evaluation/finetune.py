"""Fine-tuning: the whole network learns from labels, each route by itself, with its gates held to their budget."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_dc.assemble import build
from ssl_dc.budget_control import budget_control
from ssl_dc.calibration import calibrate
from ssl_dc.config.schema import BudgetConfig
from ssl_dc.data.base import Labels, Splits
from ssl_dc.data.workers import loaded, prepare_worker, worker_failures
from ssl_dc.distributed import world_size
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.crops import Crops, CropsOfEpochs
from ssl_dc.evaluation.dialled import calibration_batches
from ssl_dc.evaluation.features import Features, extract, labels_of
from ssl_dc.evaluation.few_labels import label_settings, with_label_share
from ssl_dc.evaluation.knn import percent_correct
from ssl_dc.evaluation.options import FinetuneOptions
from ssl_dc.evaluation.scores import Evaluation, own_splits, route_score
from ssl_dc.gating.base import GatingScheme, set_budgets
from ssl_dc.gating.cost import Trace
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.seeds import derived_seed, kept_random_states, seed_everything

_FINETUNING = 5
"""Together with the seed and the step, the key of the seed that a step draws from."""
MOMENTUM = 0.9


def finetune(model: Model, options: FinetuneOptions) -> Evaluation:
    """Run the protocol ``finetune`` on the data set of the model's config.

    Each route and seed has a copy of the network and a linear layer of its own. SGD with momentum 0.9, no weight decay, a
    cosine to 0; random crops and flips. The gates learn too, with the loss of their scheme, and are held to their budget as
    in the training of the run. After the last step they are calibrated, so that the gated route pays its budget.

    Raises:
        ConfigError: If several processes are launched.
        DataError: If its images cannot be opened or have no labels.
        RunError: If features are not finite.
    """
    if world_size() > 1:
        raise ConfigError("protocol finetune runs in one process; launch it without torchrun")
    splits = with_label_share(own_splits(model), options.label_share, options.label_seed)
    train_labels, test_labels = labels_of(splits.evaluation_train), labels_of(splits.test)
    scores = {}
    for route in model.routes:
        accuracies = []
        for seed in range(options.seeds):
            with kept_random_states():
                tuned = Finetuning(model, route, splits, options, seed)
                tuned.train()
                predicted, test = tuned.predictions(splits)
            accuracies.append(percent_correct(predicted, test_labels))
        scores[route] = route_score(accuracies, test, model.cost.dense_macs)
    settings = {
        "seeds": options.seeds,
        "epochs": options.epochs,
        "start": "drawn weights" if options.scratch else "the run's weights",
        **label_settings(options.label_share, options.label_seed),
    }
    return Evaluation("finetune", settings, len(train_labels), len(test_labels), scores)


class Finetuning:
    """One fine-tuning of a copy of a model, by one route.

    Args:
        model: It is not changed.
        route: The route.
        splits: Images to learn from, with labels, and images to calibrate gates on.
        options: Length, learning rates, batch.
        seed: Of the linear layer, of the order and of the crops.
    """

    def __init__(self, model: Model, route: Route, splits: Splits, options: FinetuneOptions, seed: int) -> None:
        self.options, self.seed, self.splits = options, seed, splits
        seed_everything(_FINETUNING, seed)
        self.model = (
            Model.untrained(model.config.model_copy(update={"seed": seed}), model.cost).to(model.device)
            if options.scratch
            else copy.deepcopy(model)
        )
        self.budget = route.budget if isinstance(route.budget, float) else model.config.budget.target
        self.route = route
        if route.gated and self.budget is not None:
            set_budgets(self.model.encoder, (self.budget,))
            self.route = Route.at(self.budget)
        control = model.config.budget.control
        self.control = budget_control(BudgetConfig(target=self.budget, control=control), self.model.cost)
        self.gating = build("gating", model.config.gating, GatingScheme)
        self.head = nn.Linear(model.feature_dim, len(splits.classes)).to(model.device)
        self.optimizer = torch.optim.SGD(
            [
                {"params": list(self.model.encoder.parameters()), "lr": options.lr},
                {"params": list(self.head.parameters()), "lr": options.head_lr},
            ],
            momentum=MOMENTUM,
        )
        for group in self.optimizer.param_groups:
            group["peak_lr"] = group["lr"]

    def train(self) -> None:
        """Learn from the labelled images; then hold the gates to their budget."""
        data, workers, device = self.model.config.data, self.model.config.training.workers, self.model.device
        images = self.splits.evaluation_train
        labels = torch.from_numpy(labels_of(images))
        crops = Crops(images, data.image_size, data.mean, data.std, seed=self.seed)
        batches = _batch_count(len(images), self.options.batch_size)
        total = self.options.epochs * batches
        order = _Order(len(images), batches, self.options.epochs, self.seed)
        loader = DataLoader(
            CropsOfEpochs(crops),
            batch_sampler=order,
            num_workers=workers,
            worker_init_fn=prepare_worker,
        )
        self.model.train()
        with worker_failures():
            for step, (rows, batch) in enumerate(zip(order, loaded(loader), strict=True)):
                seed_everything(_FINETUNING, self.seed, step)
                batch = batch.to(device, memory_format=torch.channels_last)
                self._step(batch, labels[[image for _, image in rows]].to(device), step / total)
                if self.route.gated and self.budget is not None:
                    self.control.after_step(self.model.encoder, batch, step, self.budget)
        self.model.eval()
        if self.route.gated and self.budget is not None:
            calibrate(self.model.encoder, calibration_batches(self.model, self.splits), self.model.cost, (self.budget,))

    def _step(self, images: Tensor, labels: Tensor, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (1 + math.cos(math.pi * progress)) / 2
        encoded = self.model(images, self.route)
        loss = F.cross_entropy(self.head(encoded.features), labels)
        if self.route.gated and self.budget is not None:
            trace = Trace(encoded.masks, self.model.cost)
            loss = loss + sum(self.gating.losses(trace, self.budget, progress).values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def predictions(self, splits: Splits) -> tuple[Labels, Features]:
        """The classes of the test images, and their features with what they cost."""
        test = extract(self.model, splits.test, [self.route], workers=self.model.config.training.workers)[self.route]
        logits = [self.head(some.to(self.model.device)) for some in torch.from_numpy(test.features).split(4096)]
        predicted: Labels = torch.cat(logits).argmax(dim=1).cpu().numpy()
        return predicted, test


@dataclass(frozen=True)
class _Order:
    """In which order images are learnt from: batches of (epoch, image), drawn anew for each epoch.

    All epochs share the workers that prepare images: to start workers takes longer than an epoch of few labels.
    """

    images: int
    batches: int
    epochs: int
    seed: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in range(self.epochs):
            generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
            for some in torch.randperm(self.images, generator=generator).tensor_split(self.batches):
                yield [(epoch, image) for image in some.tolist()]


def _batch_count(images: int, batch_size: int) -> int:
    """Into how many batches of nearly equal size images go. None is a single image, which batch norms cannot take."""
    return max(1, min(math.ceil(images / batch_size), images // 2))
