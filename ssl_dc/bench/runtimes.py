"""Ways to run a dense network on this machine, the fastest of which is what gating is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_dc.compiled.capture import capture
from ssl_dc.compiled.fuse import fuse
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.errors import SslDcError
from ssl_dc.export.onnx_files import onnx_session
from ssl_dc.model import Model
from ssl_dc.routes import Route

Run = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) to features (N, feature_dim)."""


@dataclass(frozen=True)
class Unavailable:
    """A runtime that this machine does not have, and why."""

    reason: str


def eager(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The dense route as training runs it."""
    return model.dense


def folded(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """Norms folded into convolutions, channels last."""
    network = _plain(model)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        features: Tensor = network(images.contiguous(memory_format=torch.channels_last))
        return features

    return run


def inductor(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """The folded network compiled by torch.compile, weights frozen into it."""
    network = _plain(model)
    compiled = torch.compile(network, dynamic=False, fullgraph=True, options={"freezing": True})

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        features: Tensor = compiled(images.contiguous(memory_format=torch.channels_last))
        return features

    run(example)
    return run


def onnxruntime(model: Model, example: Tensor, threads: int) -> Run:
    """The folded network by onnxruntime."""
    session = onnx_session(_plain(model), example, threads)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def executor(model: Model, example: Tensor, threads: int) -> Run:  # noqa: ARG001
    """Our own, with nothing gated."""
    network = model.compile_dense(threads=threads)
    return lambda images: network(images).features


RUNTIMES: dict[str, Callable[[Model, Tensor, int], Run]] = {
    "eager": eager,
    "folded": folded,
    "inductor": inductor,
    "onnxruntime": onnxruntime,
    "executor": executor,
}
"""Each makes, for a model, an example batch and a number of threads, a way to run its dense route."""


def made(name: str, model: Model, example: Tensor, threads: int) -> Run | Unavailable:
    """A runtime of this model, or why there is none."""
    try:
        run = RUNTIMES[name](model, example, threads)
        run(example)
    except SslDcError as error:
        return Unavailable(str(error))
    except Exception as error:  # a compiler that is not there, a version that does not fit: the others are still of use
        return Unavailable(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
    return run


def _plain(model: Model) -> PlanNetwork:
    network = PlanNetwork(fuse(capture(model.encoder.backbone(Route.DENSE), Route.DENSE)))
    return network.eval().to(memory_format=torch.channels_last)
