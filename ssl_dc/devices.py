"""Where tensors are computed: devices by name, and what a device cannot do."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from ssl_dc.errors import ConfigError

AUTO = "auto"
"""The name of the best device there is."""


def device_named(name: str | torch.device) -> torch.device:
    """The device of a name.

    Args:
        name: As torch writes it, such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; or ``auto``: CUDA if there is any, else
            Apple's MPS, else the CPU.

    Raises:
        ConfigError: If this machine has no such device.
    """
    if name == AUTO:
        return torch.device(available_devices()[0])
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:  # each backend of torch raises its own
        allowed = ", ".join([AUTO, *available_devices()])
        raise ConfigError(f"device {str(name)!r} is not on this machine; allowed: {allowed}") from error
    return device


def available_devices() -> list[str]:
    """The devices of this machine, the best one first."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{number}" for number in range(1, count))] if count else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def expect_cuda_home_without_gpu() -> None:
    """Let torch compile for a CPU without a warning that CUDA's compiler is installed and no GPU is there.

    Call it after torch was imported, which resets the level of its loggers. This one warns of nothing else.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def in_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device; on the CPU if that device has no float64, as Apple's MPS."""
    return (tensor if _has_float64(tensor.device.type) else tensor.cpu()).to(torch.float64)


def without_wait(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU, brought to a device without waiting for what the device still has to do."""
    return pinned(values, device).to(device, non_blocking=True)


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU, in memory from which a copy to the device does not wait."""
    return values.pin_memory() if device.type == "cuda" else values


class Readback:
    """Numbers on their way from a device to the CPU. To read them waits for their own copy alone, not for later work.

    Args:
        values: On any device.
    """

    def __init__(self, values: Tensor) -> None:
        self._copied = torch.cuda.Event() if values.is_cuda else None
        self._values = values.to("cpu", non_blocking=values.is_cuda)
        if self._copied is not None:
            self._copied.record()

    def tensor(self) -> Tensor:
        """The numbers on the CPU, in the shape and dtype that they have."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._values

    def read(self) -> list[float]:
        """The numbers of a tensor with one axis."""
        return [float(value) for value in self.tensor().tolist()]


@cache
def _has_float64(device_type: str) -> bool:
    try:
        torch.empty(0, dtype=torch.float64, device=device_type)
    except Exception:  # each backend of torch raises its own
        return False
    return True
