"""A trained run as files that run without ssl-dc."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_dc.assemble import build_data_set
from ssl_dc.atomic_files import write_bytes
from ssl_dc.bench.timing import in_turns
from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.compiled.slim import macs_of, parameters_of, slim
from ssl_dc.data.base import ImageSet, Splits
from ssl_dc.data.prepared import Prepared
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.errors import ConfigError, DataError, RunError
from ssl_dc.evaluation.features import labels_of
from ssl_dc.evaluation.knn import knn_accuracy
from ssl_dc.export.onnx_files import onnx_bytes
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.tensor_files import write_tensors

Format = Literal["onnx", "torch", "torchvision"]
FORMATS: Mapping[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "torchvision": ".safetensors"}
"""Each with the ending of its files: ONNX, torch.export, a state_dict that torchvision's model of that name loads."""

CALIBRATION_IMAGES = 1024
"""How many training images say which channels are seldom open."""


def dense_network(model: Model) -> nn.Module:
    """The dense route, norms folded: images (N, 3, H, W) to features."""
    return PlanNetwork(fuse(capture(model.encoder.backbone(Route.DENSE), Route.DENSE)))


class GatedNetwork(nn.Module):
    """The gated route with its masks inside: images (N, 3, H, W) to features and the mask of each site, in their order.

    Every channel is computed and multiplied by its mask, as in training: it says what the gates decide, and saves no time.

    Args:
        model: With gates.

    Attributes:
        outputs: Names of what it returns.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.backbone = model.encoder.backbone(Route.GATED)
        self.sites = [point.site.name for point in self.backbone.gate_points() if point.gate is not None]
        self.outputs = ["features", *(f"mask.{site}" for site in self.sites)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features (N, feature_dim) and masks (N, channels)."""
        features, masks = self.backbone(images, Route.GATED)
        return (features, *(masks[site] for site in self.sites))


def export(model: Model, route: Route, form: Format, path: Path) -> None:
    """Write one route of a model.

    Args:
        model: On the CPU.
        route: ``dense``: an ordinary network; ``gated``: with its masks inside, see :class:`GatedNetwork`.
        form: See ``FORMATS``.
        path: The file; replaced if it is there.

    Raises:
        ConfigError: If the route does not exist in that form, or packages are missing.
        RunError: If the network cannot be exported, or the file cannot be written.
    """
    if form == "torchvision":
        if route.gated:
            raise ConfigError("torchvision's models have no gates: --format torchvision takes --route dense only")
        write_tensors(path, model.encoder.backbone(route).torchvision_state_dict(route))
        return
    if route.gated and not model.has_gates:
        raise ConfigError(f"this run has no gated route: it was trained with gating {model.config.gating.name!r}")
    network = dense_network(model) if not route.gated else GatedNetwork(model)
    outputs = ["features"] if not route.gated else cast(GatedNetwork, network).outputs
    write_network(network, outputs, model.config.data.image_size, form, path)


def write_network(network: nn.Module, outputs: list[str], image_size: int, form: Format, path: Path) -> None:
    """Write a network as ONNX or by torch.export, for batches of any size of images (3, image_size, image_size).

    Raises:
        ConfigError: If packages are missing.
        RunError: If it cannot be exported or written.
    """
    example = torch.zeros(2, 3, image_size, image_size)
    if form == "onnx":
        write_bytes(path, onnx_bytes(network, example, outputs))
        return
    buffer = io.BytesIO()
    try:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of weights that share memory, as views of one file do
            torch.export.save(program, buffer)
    except Exception as error:  # the exporter's own errors have many types
        raise RunError(f"this network cannot be exported: {str(error).strip().splitlines()[0]}") from error
    write_bytes(path, buffer.getvalue())


@dataclass(frozen=True)
class Variant:
    """One network of a run, beside its others.

    Attributes:
        top1: kNN-1 accuracy in percent on held-out images.
        macs: For an image, mean.
        parameters: Of its convolutions.
        milliseconds: Median time for one image by the executor.
    """

    top1: float
    macs: float
    parameters: int
    milliseconds: float


@dataclass(frozen=True)
class Slimmed:
    """A network whose seldom open channels are cut, and what it is worth beside the others.

    Attributes:
        network: An ordinary one, without gates.
        variants: ``dense``, ``gated`` (dynamic) and ``static``.
    """

    network: PlanNetwork
    variants: dict[str, Variant]

    def as_json(self) -> dict[str, Any]:
        """The variants as plain values."""
        return {name: vars(variant) for name, variant in self.variants.items()}

    def rows(self) -> list[dict[str, str]]:
        """The variants as rows of a table."""
        return [
            {
                "network": name,
                "kNN-1 %": f"{variant.top1:.2f}",
                "MACs an image": f"{variant.macs:,.0f}",
                "weights": f"{variant.parameters:,}",
                "ms an image": f"{variant.milliseconds:.3f}",
            }
            for name, variant in self.variants.items()
        ]


def slimmed_run(model: Model, least: float, *, multiple: int = 1) -> Slimmed:
    """:func:`slimmed`, by the images of the model's own data set.

    Raises:
        DataError: If that cannot be opened, or has no labels or no held-out images.
    """
    splits = open_splits(build_data_set(model.config))
    labels_of(splits.evaluation_train)  # before anything is computed that cannot be compared without labels
    if len(splits.test) == 0:
        raise DataError("this data set holds no images out, by which a slimmed network could be compared")
    return slimmed(model, splits, least, multiple=multiple, workers=model.config.training.workers)


def slimmed(model: Model, splits: Splits, least: float, *, multiple: int = 1, workers: int = 0) -> Slimmed:
    """Cut what is open for less than a share of the training images, and compare by held-out images.

    Args:
        model: With gates, on the CPU.
        splits: Images of its data set; held-out ones and labels are needed.
        least: The share, in [0, 1].
        multiple: See :func:`ssl_dc.compiled.slim.slim`.
        workers: Processes that prepare images.

    Raises:
        DataError: If there are no labels.
        RunError: If the model has no gates, or cannot be compiled or cut.
    """
    gated = model.compile_gated()
    backbone = model.encoder.backbone(Route.GATED)
    full = fuse(capture(backbone, Route.GATED))
    shares = open_shares(gated, model, sample(splits.train, CALIBRATION_IMAGES), workers)
    plan = slim(full, shares, least, multiple=multiple)
    size = model.config.data.image_size
    executors = {"dense": model.compile_dense(), "gated": gated, "static": Executor(plan, backbone.cost_model)}
    macs = {"dense": model.cost.dense_macs, "static": macs_of(plan, size)}
    parameters = {"dense": parameters_of(full), "gated": parameters_of(full), "static": parameters_of(plan)}
    image = _prepared(model, splits.test)[0][None]
    times = in_turns({name: _way(executor, image) for name, executor in executors.items()}, seconds=3)
    variants = {}
    for name, executor in executors.items():
        top1, paid = _accuracy(executor, model, splits, workers)
        variants[name] = Variant(top1, macs.get(name, paid), parameters[name], times.timing(name).median)
    return Slimmed(PlanNetwork(plan).eval(), variants)


def open_shares(executor: Executor, model: Model, images: ImageSet, workers: int = 0) -> dict[str, Tensor]:
    """For each site the share of images for which each entry of its mask is open, (channels,) float32."""
    masks = [executor(batch).masks for batch in _loader(model, images, workers)]
    return {site: torch.cat([some[site] for some in masks]).mean(dim=0) for site in masks[0]}


def _accuracy(executor: Executor, model: Model, splits: Splits, workers: int) -> tuple[float, float]:
    """kNN-1 accuracy in percent on held-out images, and what one of them costs on average, in MACs."""
    train, _ = _features(executor, model, splits.evaluation_train, workers)
    test, macs = _features(executor, model, splits.test, workers)
    return knn_accuracy(train, labels_of(splits.evaluation_train), test, labels_of(splits.test)), macs


def _features(executor: Executor, model: Model, images: ImageSet, workers: int) -> tuple[npt.NDArray[np.float32], float]:
    outs = [executor(batch) for batch in _loader(model, images, workers)]
    features = np.concatenate([out.features.numpy() for out in outs])
    return features, float(torch.cat([out.macs for out in outs]).mean())


def _way(executor: Executor, image: Tensor) -> Callable[[int], Any]:
    return lambda _number: executor(image)


def _prepared(model: Model, images: ImageSet) -> Prepared:
    return Prepared(images, model.transform)


def _loader(model: Model, images: ImageSet, workers: int) -> Iterable[Tensor]:
    return DataLoader(_prepared(model, images), batch_size=256, num_workers=workers)
