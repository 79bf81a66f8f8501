"""Compares the executor with the reference gated route on held-out images: features, decisions, kNN predictions.

python benchmarks/equality.py RUN [--images 1000] [--precision int8]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

import ssl_dc
from ssl_dc.assemble import build_data_set
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    options = parser.parse_args()
    model = ssl_dc.load(options.run)
    splits = open_splits(build_data_set(model.config))
    executor = model.compile_gated(precision=options.precision)
    predictions = {}
    for name, images in (("train", splits.evaluation_train), ("test", sample(splits.test, options.images))):
        prepared = Prepared(images, model.transform)
        batches = torch.stack([prepared[index] for index in range(len(prepared))]).split(256)
        reference = [model.gated(batch) for batch in batches]
        executed = [executor(batch) for batch in batches]
        want = torch.cat([out.features for out in reference]).numpy()
        got = torch.cat([out.features for out in executed]).numpy()
        difference = np.abs(want - got).max(axis=1) / np.abs(want).max(axis=1)
        bits = sum(mask.numel() for out in reference for mask in out.masks.values())
        flipped = sum(
            int((mask != other.masks[site]).sum())
            for out, other in zip(reference, executed, strict=True)
            for site, mask in out.masks.items()
        )
        print(
            f"{name}: {len(want):,} images, largest relative difference of an image's features {difference.max():.2e}"
            f" (median {np.median(difference):.1e}); {flipped} of {bits:,} gate decisions differ ({flipped / bits:.3%})"
        )
        predictions[name] = (want, got, images.labels)
    for route, which in (("reference", 0), ("executor", 1)):
        classifier = KNeighborsClassifier(n_neighbors=1, algorithm="brute")
        classifier.fit(predictions["train"][which], predictions["train"][2])
        predictions[route] = classifier.predict(predictions["test"][which])
    different = int((predictions["reference"] != predictions["executor"]).sum())
    labels = predictions["test"][2]
    accuracy = {route: 100 * float((predictions[route] == labels).mean()) for route in ("reference", "executor")}
    print(
        f"kNN-1: {different} of {len(labels):,} predictions differ; accuracy {accuracy['executor']:.2f} %,"
        f" of the reference {accuracy['reference']:.2f} %"
    )


if __name__ == "__main__":
    main()
