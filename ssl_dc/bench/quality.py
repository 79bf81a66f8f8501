"""What each way to deploy a run gives for its time: accuracy, and the size of the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_dc.assemble import build_data_set
from ssl_dc.bench.measure import EXECUTOR, Measured, features_of, gated_executor, is_gated, precision_of
from ssl_dc.bench.runtimes import DenseNetwork, Precision, Run, Unavailable, runtime_or_reason
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_size import parameters_of
from ssl_dc.compiled.torch_threads import torch_threads
from ssl_dc.data.base import ImageSet
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.errors import RunError
from ssl_dc.evaluation.features import FeatureArray, labels_of
from ssl_dc.evaluation.knn import knn_accuracy
from ssl_dc.evaluation.linear import LinearClassifiers
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.routes import Route

SEEDS, EPOCHS = 5, 100
BATCH = 32
WITHIN = 1.0
"""Points of linear accuracy that a way may lose against the dense network in float32 to be recommended."""


@dataclass(frozen=True)
class Quality:
    """What one way gives.

    Attributes:
        knn: kNN-1 accuracy in percent on held-out images.
        linear: Linear accuracy in percent, mean of five classifiers.
        mebibytes: Size of the network's weights in the precision of the way.
        milliseconds: Median time of a single image.
    """

    knn: float
    linear: float
    mebibytes: float
    milliseconds: float


@dataclass(frozen=True)
class Qualities(Report):
    """Accuracy, size and time of the ways to deploy a run. Of the dense ways in float32 only the fastest is there.

    Attributes:
        ways: By name.
        train_images: Images that the accuracies are learnt from.
        test_images: Held-out images.
        threads: CPU threads for a single image.
    """

    ways: Mapping[str, Quality]
    train_images: int
    test_images: int
    threads: int

    @property
    def recommended(self) -> str:
        """The fastest way that loses at most one point of linear accuracy against the dense network in float32."""
        exact = max(self.ways[way].linear for way in self.ways if not is_gated(way) and precision_of(way) == "float32")
        good = [way for way, quality in self.ways.items() if quality.linear >= exact - WITHIN]
        return min(good, key=lambda way: self.ways[way].milliseconds)

    def as_json(self) -> dict[str, Any]:
        """The ways by name, and the recommended one."""
        return {
            "ways": {way: {"precision": precision_of(way), **vars(quality)} for way, quality in self.ways.items()},
            "train_images": self.train_images,
            "test_images": self.test_images,
            "threads": self.threads,
            "recommended": self.recommended,
        }

    def tables(self) -> Sequence[ReportTable]:
        """One row for each way, and a sentence that says which to deploy."""
        columns = ("way", "precision", "kNN-1 %", "linear %", "weights, MiB", "ms an image")
        rows = [(way, precision_of(way), *_shown(quality)) for way, quality in self.ways.items()]
        return [ReportTable("what each way gives", columns, rows, note="\n".join(self._notes()))]

    def _notes(self) -> Iterator[str]:
        yield (
            f"Accuracy on {self.test_images:,} held-out images, learnt from {self.train_images:,}."
            f" Time of a single image with {self.threads} thread{'' if self.threads == 1 else 's'}."
            " Of the dense ways in float32 only the fastest is here, since all of them compute the same."
        )
        best = self.ways[self.recommended]
        yield (
            f"Deploy {self.recommended!r} ({best.milliseconds:.3f} ms, {best.linear:.2f} %): it is the fastest of the ways"
            f" that lose at most {WITHIN:g} point of linear accuracy against the dense network in float32."
        )


def _shown(quality: Quality) -> tuple[str, ...]:
    size = f"{quality.mebibytes:.2f}"
    return f"{quality.knn:.2f}", f"{quality.linear:.2f}", size, f"{quality.milliseconds:.3f}"


def qualities(network: DenseNetwork, measured: Measured, images: int) -> Qualities:
    """The accuracy and size of the fastest dense way in float32, of all in other precisions, and of the gated executor.

    Args:
        network: The dense network of the model.
        measured: Times of single images.
        images: How many images to learn from, and how many held-out ones to classify, at most.

    Raises:
        DataError: If the model's data set cannot be opened, or has no labels or no held-out images.
        RunError: If a way that was timed does not run any more.
    """
    splits = open_splits(build_data_set(network.model.config))
    train, test = sample(splits.evaluation_train, images), sample(splits.test, images)
    labels = labels_of(train), labels_of(test)
    threads = measured.situation.threads
    features: dict[str, tuple[FeatureArray, FeatureArray]] = {}
    with torch_threads(threads):
        for way in _compared(measured):
            run = _run_of(way, network, _batch(network, test, 0), threads)
            features[way] = _features(run, network, train), _features(run, network, test)
    linear = _linear(features, *labels, len(splits.classes))
    ways = {
        way: Quality(
            knn=knn_accuracy(of_train, labels[0], of_test, labels[1]),
            linear=linear[way],
            mebibytes=_size(way, network) / 2**20,
            milliseconds=measured.timing(way).median,
        )
        for way, (of_train, of_test) in features.items()
    }
    return Qualities(ways, len(train), len(test), threads)


def _compared(measured: Measured) -> list[str]:
    """The fastest dense way in float32, all in other precisions, and the gated executor, where they were measured."""
    others = [way for way in measured.times.milliseconds if precision_of(way) != "float32"]
    gated = [EXECUTOR] if EXECUTOR in measured.times.milliseconds else []
    return [measured.fastest_dense, *others, *gated]


def _run_of(way: str, network: DenseNetwork, example: Tensor, threads: int) -> Run:
    if is_gated(way):
        compiled = gated_executor(way, network, threads)
        run = compiled if isinstance(compiled, Unavailable) else features_of(compiled)
    else:
        run = runtime_or_reason(way.partition(": ")[2], network, example, threads)
    if isinstance(run, Unavailable):
        raise RunError(f"{way} ran a moment ago and does not any more: {run.reason}")
    return run


def _batch(network: DenseNetwork, images: ImageSet, start: int) -> Tensor:
    prepared = Prepared(images, network.model.transform)
    return torch.stack([prepared[index] for index in range(start, min(start + BATCH, len(images)))])


def _features(run: Run, network: DenseNetwork, images: ImageSet) -> FeatureArray:
    features: FeatureArray = torch.cat(
        [run(_batch(network, images, start)).float() for start in range(0, len(images), BATCH)]
    ).numpy()
    return features


def _linear(
    features: Mapping[str, tuple[FeatureArray, FeatureArray]], train_labels: Any, test_labels: Any, classes: int
) -> dict[str, float]:
    """Linear accuracy of each way, in percent."""
    train = [torch.from_numpy(of_train) for of_train, _ in features.values()]
    classifiers = LinearClassifiers(len(train), SEEDS, train[0].shape[1], classes, epochs=EPOCHS)
    for _ in range(EPOCHS):
        classifiers.epoch(train, torch.from_numpy(train_labels))
    accuracies = classifiers.accuracies([of_test for _, of_test in features.values()], test_labels)
    return {way: sum(some) / len(some) for way, some in zip(features, accuracies, strict=True)}


BYTES: Mapping[Precision, int] = {"float32": 4, "bf16": 2, "int8": 1}
"""Of a weight."""


def _size(way: str, network: DenseNetwork) -> int:
    """Bytes of the weights in the precision of a way."""
    route = network.model.gated_route if is_gated(way) else Route.DENSE
    return BYTES[precision_of(way)] * parameters_of(fuse(capture(network.model.encoder.backbone(route), route)))
