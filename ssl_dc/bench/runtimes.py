"""The runtimes that can run a dense network on this machine. Gating is measured against the fastest of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.errors import SslDcError
from ssl_dc.export.networks import dense_network
from ssl_dc.export.onnx_files import onnx_session
from ssl_dc.model import Model

Run = Callable[[Tensor], Tensor]
"""Takes images (N, 3, H, W) and returns features (N, feature_dim)."""


@dataclass(frozen=True)
class Unavailable:
    """A runtime that this machine does not have, with the reason."""

    reason: str


def eager(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The dense route as training runs it."""
    return model.dense


def folded(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The dense route in torch, with its norms folded and channels last."""
    network = _plain(model)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        features: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return features

    return run


def inductor(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The folded network compiled by torch.compile with frozen weights."""
    network = _plain(model)
    compiled = torch.compile(network, dynamic=False, fullgraph=True, options={"freezing": True})

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        features: Tensor = compiled(images.contiguous(memory_format=torch.channels_last))
        return features

    run(example)
    return run


def onnxruntime(model: Model, example: Tensor, threads: int) -> Run:
    """The folded network in onnxruntime."""
    session = onnx_session(_plain(model), example, threads)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def executor(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The dense route in the executor of this project."""
    network = model.compile_dense(threads=threads)
    return lambda images: network(images).features


RUNTIMES: dict[str, Callable[[Model, Tensor, int], Run]] = {
    "eager": eager,
    "folded": folded,
    "inductor": inductor,
    "onnxruntime": onnxruntime,
    "executor": executor,
}
"""Each takes a model, an example batch and a number of threads, and returns a function that runs the dense route."""


def runtime_or_reason(name: str, model: Model, example: Tensor, threads: int) -> Run | Unavailable:
    """A runtime for this model, or the reason why there is none."""
    try:
        run = RUNTIMES[name](model, example, threads)
        run(example)
    except SslDcError as error:
        return Unavailable(str(error))
    except Exception as error:  # a missing compiler, a wrong version: the other runtimes are still of use
        return Unavailable(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
    return run


def _plain(model: Model) -> PlanNetwork:
    return dense_network(model).to(memory_format=torch.channels_last)
