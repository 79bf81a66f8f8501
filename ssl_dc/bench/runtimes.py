"""The ways to run a dense network on this machine: runtimes, each in the precisions that it has.

Gating is measured against the fastest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_dc.compiled.executor import Executor
from ssl_dc.compiled.kernel import multiplies_bf16
from ssl_dc.compiled.plan_network import PlanNetwork
from ssl_dc.errors import ConfigError, RunError, SslDcError
from ssl_dc.export.int8_files import int8_onnx_bytes
from ssl_dc.export.networks import dense_network
from ssl_dc.export.onnx_files import onnx_bytes, session_of
from ssl_dc.export.openvino_networks import int8_openvino_network, openvino_network, openvino_run
from ssl_dc.model import Model

Run = Callable[[Tensor], Tensor]
"""Takes images (N, 3, H, W) and returns features (N, feature_dim)."""

Precision = Literal["float32", "bf16", "int8"]


class DenseNetwork:
    """The dense route of a model in the forms that runtimes take, and what is calibrated on the same images.

    Each form is made when it is first asked for.

    Args:
        model: On the CPU.
        calibration: Gives training images (n, 3, H, H) float32, normalised, on which the ranges of int8 are measured.
    """

    def __init__(self, model: Model, calibration: Callable[[], Tensor]) -> None:
        self.model = model
        self._calibration = calibration

    @cached_property
    def calibration(self) -> Tensor:
        """Training images (n, 3, H, H)."""
        return self._calibration()

    @property
    def folded(self) -> PlanNetwork:
        """In torch, its norms folded, channels last."""
        return dense_network(self.model).to(memory_format=torch.channels_last)

    @cached_property
    def onnx(self) -> bytes:
        """As the content of an ONNX file."""
        size = self.model.config.data.image_size
        return onnx_bytes(self.folded, torch.zeros(2, 3, size, size), ["features"])

    @cached_property
    def int8_onnx(self) -> bytes:
        """As the content of an ONNX file in int8."""
        return int8_onnx_bytes(self.onnx, self.calibration)

    @cached_property
    def openvino(self) -> Any:
        """As an ``openvino.Model``."""
        return openvino_network(self.onnx)

    @cached_property
    def int8_openvino(self) -> Any:
        """As an ``openvino.Model`` in int8."""
        return int8_openvino_network(self.openvino, self.calibration)

    @cached_property
    def int8_dense(self) -> Executor:
        """The dense route in the executor of this project in int8; with one thread."""
        return self.model.compile_dense(threads=1, precision="int8", calibration=self.calibration)

    @cached_property
    def int8_gated(self) -> Executor:
        """The gated route of the model in the executor in int8; with one thread."""
        return self.model.compile_gated(threads=1, precision="int8", calibration=self.calibration)


@dataclass(frozen=True)
class Runtime:
    """A way to run a dense network.

    Attributes:
        precision: In which it multiplies.
        make: Takes the network and a number of threads, and returns a function that runs it.
    """

    precision: Precision
    make: Callable[[DenseNetwork, int], Run]


@dataclass(frozen=True)
class Unavailable:
    """A runtime that this machine does not have, with the reason."""

    reason: str


def _eager(network: DenseNetwork, threads: int) -> Run:  # noqa: ARG001
    """The dense route as training runs it."""
    return network.model.dense


def _folded(network: DenseNetwork, threads: int) -> Run:  # noqa: ARG001
    """The dense route in torch, with its norms folded and channels last."""
    return _channels_last(network.folded)


def _inductor(network: DenseNetwork, threads: int) -> Run:  # noqa: ARG001
    """The folded network compiled by torch.compile with frozen weights."""
    return _channels_last(torch.compile(network.folded, dynamic=False, fullgraph=True, options={"freezing": True}))


def _channels_last(network: Callable[[Tensor], Tensor]) -> Run:
    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        return network(images.contiguous(memory_format=torch.channels_last))

    return run


def _of_session(content: bytes, threads: int) -> Run:
    session = session_of(content, threads)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def _executor(network: DenseNetwork, threads: int) -> Run:
    """The dense route in the executor of this project."""
    compiled = network.model.compile_dense(threads=threads)
    return lambda images: compiled(images).features


def need_bf16() -> None:
    """Refuse to measure bf16 where it is only float32 done in a slower way.

    Raises:
        RunError: If this processor has no instructions for bf16.
    """
    if not multiplies_bf16():
        raise RunError("this processor has no instructions for bf16")


def _bf16_executor(network: DenseNetwork, threads: int) -> Run:
    """The same in bf16, where the processor has instructions for it."""
    need_bf16()
    compiled = network.model.compile_dense(threads=threads, precision="bf16")
    return lambda images: compiled(images).features


def _int8_executor(network: DenseNetwork, threads: int) -> Run:
    """The same in int8."""
    compiled = network.int8_dense.with_threads(threads)
    return lambda images: compiled(images).features


RUNTIMES: Mapping[str, Runtime] = {
    "eager": Runtime("float32", _eager),
    "folded": Runtime("float32", _folded),
    "inductor": Runtime("float32", _inductor),
    "onnxruntime": Runtime("float32", lambda network, threads: _of_session(network.onnx, threads)),
    "openvino": Runtime("float32", lambda network, threads: openvino_run(network.openvino, threads, "f32")),
    "executor": Runtime("float32", _executor),
    "openvino-bf16": Runtime("bf16", lambda network, threads: openvino_run(network.openvino, threads, "bf16")),
    "executor-bf16": Runtime("bf16", _bf16_executor),
    "onnxruntime-int8": Runtime("int8", lambda network, threads: _of_session(network.int8_onnx, threads)),
    "openvino-int8": Runtime("int8", lambda network, threads: openvino_run(network.int8_openvino, threads, "f32")),
    "executor-int8": Runtime("int8", _int8_executor),
}
"""The ways by name."""


def check_runtimes(names: Sequence[str]) -> None:
    """Refuse runtimes none of which is in float32: speed-ups are over the fastest of those.

    Raises:
        ConfigError: If there is none.
    """
    exact = [name for name, runtime in RUNTIMES.items() if runtime.precision == "float32"]
    if not set(exact) & set(names):
        raise ConfigError(
            f"--runtime must also name one in float32, over which speed-ups are: {', '.join(exact)}; not only"
            f" {', '.join(names)}"
        )


def runtime_or_reason(name: str, network: DenseNetwork, example: Tensor, threads: int) -> Run | Unavailable:
    """A runtime for this network that has run an example batch, or the reason why there is none."""
    try:
        run = RUNTIMES[name].make(network, threads)
        run(example)
    except SslDcError as error:
        return Unavailable(str(error))
    except Exception as error:  # a missing compiler, a wrong version: the other runtimes are still of use
        return Unavailable(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
    return run
