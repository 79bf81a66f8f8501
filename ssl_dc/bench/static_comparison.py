"""Compares a static network with the dense and the gated one that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_dc.assemble import build_data_set
from ssl_dc.bench.timing import in_turns
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.plan_size import macs_of, parameters_of
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.data.base import ImageSet, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.errors import DataError
from ssl_dc.evaluation.features import labels_of
from ssl_dc.evaluation.knn import knn_accuracy
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.export.static import batches, static_plan
from ssl_dc.model import Model
from ssl_dc.routes import Route

SECONDS = 3
"""How long the networks are timed."""
TIMED_IMAGES = 32
"""Held-out images that are timed, one after another: what the gates leave out depends on the image."""


@dataclass(frozen=True)
class Variant:
    """One of the compared networks.

    Attributes:
        top1: kNN-1 accuracy in percent on held-out images; None without labels.
        macs: Mean MACs of an image.
        parameters: Number of weights and biases of its convolutions.
        milliseconds: Median time of a single image in the executor with one thread, in float32.
        p10: A tenth of the calls took less.
        p90: A tenth of the calls took longer.
    """

    top1: float | None
    macs: float
    parameters: int
    milliseconds: float
    p10: float
    p90: float


@dataclass(frozen=True)
class StaticComparison(Report):
    """A static network beside the dense and the gated network of the same run.

    Attributes:
        network: The static network.
        min_open_share: What was open for a smaller share of the training images was removed.
        variants: ``dense``, ``gated`` and ``static``.
        timed_images: How many images were timed, the same for all of them.
    """

    network: PlanNetwork
    min_open_share: float
    variants: dict[str, Variant]
    timed_images: int

    def as_json(self) -> dict[str, Any]:
        """The share, and the variants by name."""
        networks = {name: vars(variant) for name, variant in self.variants.items()}
        return {"min_open_share": self.min_open_share, "networks": networks}

    def tables(self) -> Sequence[ReportTable]:
        """One row for each variant."""
        rows = [
            (
                name,
                "-" if variant.top1 is None else f"{variant.top1:.2f}",
                f"{variant.macs:,.0f}",
                f"{variant.parameters:,}",
                *(f"{time:.3f}" for time in (variant.milliseconds, variant.p10, variant.p90)),
            )
            for name, variant in self.variants.items()
        ]
        title = f"static: without what is open for less than {100 * self.min_open_share:g} % of the training images"
        columns = ("network", "kNN-1 %", "MACs an image", "weights", "ms an image", "p10", "p90")
        note = (
            f"ms: the median for single images, with p10 and p90, over {self.timed_images} held-out images, the same for"
            " all networks: float32, one thread, ssl-dc's own executor on this machine. Medians whose p10 to p90 overlap"
            " may change places in another call."
        )
        return [ReportTable(title, columns, rows, note=note)]


def compare_static(model: Model, min_open_share: float, *, multiple: int = 1) -> StaticComparison:
    """:func:`compare_static_on` the images of the model's own data set.

    Raises:
        DataError: If the data set cannot be opened, or has no held-out images.
    """
    splits = open_splits(build_data_set(model.config))
    if len(splits.test) == 0:
        raise DataError("this data set has no held-out images, on which a static network could be compared")
    return compare_static_on(model, splits, min_open_share, multiple=multiple, workers=model.config.training.workers)


def compare_static_on(
    model: Model, splits: Splits, min_open_share: float, *, multiple: int = 1, workers: int = 0
) -> StaticComparison:
    """Make the gated route static, and compare the networks on held-out images.

    Args:
        model: With gates, on the CPU.
        splits: Images of its data set, with held-out ones. Without labels there are no accuracies.
        min_open_share: What is open for a smaller share of the training images is removed, in [0, 1].
        multiple: See :func:`ssl_dc.compiled.static.make_static`.
        workers: Processes that prepare images.

    Raises:
        RunError: If the model has no gates, or cannot be compiled or made static.
    """
    static = static_plan(model, splits.train, min_open_share, multiple=multiple, workers=workers)
    cost_model = model.encoder.backbone(Route.GATED).cost_model
    executors = {
        "dense": model.compile_dense(),
        "gated": static.executor,
        "static": Executor(static.plan, cost_model),
    }
    macs = {"dense": model.cost.dense_macs, "static": macs_of(static.plan, model.config.data.image_size)}
    parameters = {name: parameters_of(static.plan if name == "static" else static.gated) for name in executors}
    prepared = Prepared(sample(splits.test, TIMED_IMAGES), model.transform)
    singles = [prepared[number][None] for number in range(len(prepared))]
    with torch_threads(1):
        ways = {name: _way(executor.with_threads(1), singles) for name, executor in executors.items()}
        times = in_turns(ways, seconds=SECONDS)
    variants = {}
    for name, executor in executors.items():
        top1, paid = _accuracy(executor, model, splits, workers)
        timing = times.timing(name)
        variants[name] = Variant(
            top1, macs.get(name, paid), parameters[name], timing.median, p10=timing.p10, p90=timing.p90
        )
    return StaticComparison(PlanNetwork(static.plan).eval(), min_open_share, variants, len(singles))


def _accuracy(executor: Executor, model: Model, splits: Splits, workers: int) -> tuple[float | None, float]:
    """kNN-1 accuracy in percent on the held-out images, None without labels, and their mean MACs."""
    test, macs = _features(executor, model, splits.test, workers)
    if not _has_labels(splits):
        return None, macs
    train, _ = _features(executor, model, splits.evaluation_train, workers)
    return knn_accuracy(train, labels_of(splits.evaluation_train), test, labels_of(splits.test)), macs


def _has_labels(splits: Splits) -> bool:
    try:
        labels_of(splits.evaluation_train), labels_of(splits.test)
    except DataError:
        return False
    return True


def _features(executor: Executor, model: Model, images: ImageSet, workers: int) -> tuple[npt.NDArray[np.float32], float]:
    outs = [executor(batch) for batch in batches(model, images, workers)]
    features = np.concatenate([out.features.numpy() for out in outs])
    return features, float(torch.cat([out.macs for out in outs]).mean())


def _way(executor: Executor, singles: Sequence[Tensor]) -> Callable[[int], Any]:
    return lambda number: executor(singles[number % len(singles)])
