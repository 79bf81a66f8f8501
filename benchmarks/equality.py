"""Compares the executor with the reference gated route on held-out images: features, decisions, kNN-1 and linear accuracy.

python benchmarks/equality.py RUN [--images 1000] [--budget 0.1 0.5] [--precision bf16]
python benchmarks/equality.py RUN [--images 1000] [--budget 0.1 0.5] --precision int8 [--leave-out fine ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

import ssl_dc
from ssl_dc.assemble import build_data_set
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor, usual_here
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.quantise import Recipe, budgets_of, quantise
from ssl_dc.data.base import ImageSet
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.evaluation.features import labels_of
from ssl_dc.evaluation.linear import LinearClassifiers
from ssl_dc.training_images import INT8_IMAGES, training_images

SEEDS, EPOCHS = 5, 100


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=1000, help="held-out images")
    parser.add_argument("--train-images", type=int, help="images that the accuracies are learnt from; by default all")
    parser.add_argument("--precision", choices=("float32", "bf16", "int8"), default="float32")
    parts = [part.name for part in fields(Recipe) if part.default is True]
    parser.add_argument("--leave-out", choices=parts, action="append", default=[], help="a part of the int8 recipe")
    parser.add_argument("--budget", type=float, nargs="+", help="of a run for many budgets; by default its usual one")
    options = parser.parse_args()
    model = ssl_dc.load(options.run)
    splits = open_splits(build_data_set(model.config))
    if options.precision == "int8":
        executor = in_int8(model, replace(usual_here(), **dict.fromkeys(options.leave_out, False)))
    else:
        executor = model.compile_gated(precision=options.precision)
    parts_of_data = {
        "train": sample(splits.evaluation_train, options.train_images),
        "test": sample(splits.test, options.images),
    }
    for budget in options.budget or [None]:
        if budget is not None:
            print(f"budget {budget:g}")
        compare_at(budget, model, executor, parts_of_data, len(splits.classes))


def compare_at(
    budget: float | None, model: ssl_dc.Model, executor: Executor, parts: Mapping[str, ImageSet], classes: int
) -> None:
    """Compare both at a budget, and print."""
    features, labels = {}, {}
    for name, images in parts.items():
        prepared = Prepared(images, model.transform)
        batches = torch.stack([prepared[index] for index in range(len(prepared))]).split(256)
        reference = [model.gated(batch, budget) for batch in batches]
        executed = [executor(batch, budget) for batch in batches]
        want, got = (torch.cat([out.features for out in outs]) for outs in (reference, executed))
        bits = sum(mask.numel() for out in reference for mask in out.masks.values())
        flipped = sum(
            int((mask != other.masks[site]).sum())
            for out, other in zip(reference, executed, strict=True)
            for site, mask in out.masks.items()
        )
        largest = (want - got).abs().amax(dim=1) / want.abs().amax(dim=1)
        norm = (want - got).norm(dim=1) / want.norm(dim=1)
        print(
            f"{name}: {len(want):,} images, largest relative difference of an image's features {largest.max():.2e}"
            f" (median {largest.median():.1e}; of the norm {norm.median():.2e});"
            f" {flipped} of {bits:,} gate decisions differ ({flipped / bits:.3%})"
        )
        features[name], labels[name] = (want, got), labels_of(images)
    compare_neighbours(features, labels)
    compare_linear(features, labels, classes)


def in_int8(model: ssl_dc.Model, recipe: Recipe) -> Executor:
    """The gated route in int8, by some parts of the recipe."""
    backbone, route = model.encoder.backbone(model.gated_route), model.gated_route
    plan = fuse(capture(backbone, route))
    images = training_images(model.config, model.transform, INT8_IMAGES)
    return Executor(quantise(plan, images, budgets_of(plan), recipe), backbone.cost_model)


def compare_neighbours(features: dict[str, tuple[Tensor, Tensor]], labels: dict[str, np.ndarray]) -> None:
    """Print the kNN-1 accuracy of both, and the standard error of the paired difference."""
    right = []
    for train, test in zip(features["train"], features["test"], strict=True):
        classifier = KNeighborsClassifier(n_neighbors=1, algorithm="brute").fit(train.numpy(), labels["train"])
        right.append(classifier.predict(test.numpy()) == labels["test"])
    before, after = right
    difference = after.astype(float) - before
    print(
        f"kNN-1: {100 * after.mean():.2f} %, of the reference {100 * before.mean():.2f} %; paired difference"
        f" {100 * difference.mean():+.2f} points, standard error {100 * difference.std() / len(difference) ** 0.5:.2f}"
    )


def compare_linear(features: dict[str, tuple[Tensor, Tensor]], labels: dict[str, np.ndarray], classes: int) -> None:
    """Print the linear accuracy of both, mean of five seeds, and the standard deviation of the paired difference."""
    train = features["train"]
    classifiers = LinearClassifiers(2, SEEDS, train[0].shape[1], classes, epochs=EPOCHS)
    for _ in range(EPOCHS):
        classifiers.epoch(train, torch.from_numpy(labels["train"]))
    before, after = np.array(classifiers.accuracies([each.numpy() for each in features["test"]], labels["test"]))
    print(
        f"linear: {after.mean():.2f} %, of the reference {before.mean():.2f} %; paired difference"
        f" {(after - before).mean():+.2f} points, standard deviation over {SEEDS} seeds {(after - before).std(ddof=1):.2f}"
    )


if __name__ == "__main__":
    main()
