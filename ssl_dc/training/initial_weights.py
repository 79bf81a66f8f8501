"""The weights that an encoder starts from, if they are not drawn: what of a file fits the encoder, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_dc.encoders.base import Encoder
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.gating.base import Gate
from ssl_dc.json_files import read_record
from ssl_dc.printable import name_of
from ssl_dc.run_folder import RunFolder
from ssl_dc.tensor_files import read_tensors
from ssl_dc.training.weight_file import read_weights, torchvision_names

LARGEST_RECORD = 2**24
"""Size in bytes of ``init.json``, at most."""
SHOWN = 3
"""Names of each kind that a message shows."""


@dataclass(frozen=True)
class InitialWeights:
    """The weights that an encoder starts from, and what did not fit.

    Attributes:
        tensors: By the encoder's own names. The other tensors of the encoder stay as they were drawn.
        path: The file that they come from.
        sha256: Of its content.
        missing: Tensors of the encoder that the file does not hold.
        unused: Tensors of the file that the encoder has no place for.
        other_shapes: Tensors of the encoder that the file holds in another shape or kind, with both shapes.
    """

    tensors: Mapping[str, Tensor]
    path: str
    sha256: str
    missing: Sequence[str]
    unused: Sequence[str]
    other_shapes: Sequence[str]

    def record(self) -> dict[str, Any]:
        """Everything but the tensors, as ``init.json`` holds it."""
        return {**{key: value for key, value in vars(self).items() if key != "tensors"}, "used": sorted(self.tensors)}

    @classmethod
    def kept_in(cls, run: RunFolder) -> InitialWeights | None:
        """The weights that a run started from; None if it has not begun.

        Raises:
            RunError: If its files cannot be read.
        """
        if not run.initial_file.is_file():
            return None
        try:
            record = read_record(run.initial_record_file, LARGEST_RECORD)
            said = {key: record[key] for key in ("path", "sha256", "missing", "unused", "other_shapes")}
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{run.initial_record_file} cannot be read: {name_of(str(error))}") from error
        return cls(read_tensors(run.initial_file), **said)

    def load_into(self, encoder: Encoder) -> None:
        """Give an encoder of the same config these weights.

        Raises:
            RunError: If it is the encoder of another config.
        """
        own = encoder.state_dict()
        if others := [
            name_of(name) for name, tensor in self.tensors.items() if name not in own or not _fits(tensor, own[name])
        ]:
            raise RunError(f"init.safetensors does not fit the network in config.json: {_first(others)}")
        encoder.load_state_dict(dict(self.tensors), strict=False)

    @property
    def brief(self) -> str:
        """Where the weights come from, and how many tensors fit."""
        left = sum(".gate." not in name for name in self.missing) + len(self.other_shapes)
        rest = f"; {left} others, gates aside, are drawn" if left else ""
        return f"from {self.path}: {_counted(self.tensors)} tensors{rest}"

    def __str__(self) -> str:
        of_gates = [name for name in self.missing if ".gate." in name]
        left_out = {
            "of gates, not in it": of_gates,
            "not in it": [name for name in self.missing if name not in of_gates],
            "of another shape there": self.other_shapes,
            "in it and not used": self.unused,
        }
        parts = [f"{what}: {len(names)} ({_first(names)})" for what, names in left_out.items() if names]
        counted = _counted(self.tensors)
        return "; ".join(
            [f"the encoder starts from {self.path} (SHA-256 {self.sha256[:12]}): {counted} tensors are taken", *parts]
        )


def initial_weights(path: Path, encoder: Encoder) -> InitialWeights:
    """What fits an encoder of the weights of a run or a file.

    A tensor of the encoder takes the file's tensor of its own name, or else of torchvision's name for it, if the shape is
    its own. Norms that exist once for each route both take torchvision's one. Thresholds of gates are never taken: the
    training finds them.

    Args:
        path: A run's folder, a safetensors file, or a file that ``torch.save`` wrote.
        encoder: The untrained encoder; it is not changed.

    Raises:
        ConfigError: If the weights cannot be read, nothing fits, or values are not finite.
    """
    source = read_weights(path)
    names = torchvision_names(encoder)
    thresholds = _thresholds(encoder)
    taken: dict[str, Tensor] = {}
    used: set[str] = set()
    missing, other_shapes = [], []
    for name, own in encoder.state_dict().items():
        if name in thresholds:
            used.add(name)
            continue
        candidates = [name, source.by_torchvision_name.get(names.get(name, ""), "")]
        found = [candidate for candidate in candidates if candidate in source.tensors]
        fitting = [candidate for candidate in found if _fits(source.tensors[candidate], own)]
        used.update(fitting[:1] or found)
        if fitting:
            taken[name] = source.tensors[fitting[0]].to(own.dtype).contiguous().clone()
        elif not _is_counter(name):
            if found:
                other_shapes.append(f"{name}: {_shape(source.tensors[found[0]])} there, {_shape(own)} here")
            else:
                missing.append(name)
    unused = sorted(name_of(name) for name in source.tensors if name not in used and not _is_counter(name))
    if not _counted(taken):
        there = _first([f"{name_of(name)} {_shape(tensor)}" for name, tensor in sorted(source.tensors.items())])
        here = _first([f"{name} {_shape(own)}" for name, own in encoder.state_dict().items()])
        raise ConfigError(
            f"training.init: nothing in {source.path} fits the encoder, which has {here}; the file has {there}"
            f"{source.network}"
        )
    for name, tensor in taken.items():
        if not torch.isfinite(tensor).all():
            raise ConfigError(f"training.init: {source.path} has values that are not finite, for {name}")
    return InitialWeights(taken, name_of(str(source.path)), source.sha256, missing, unused, other_shapes)


def _thresholds(encoder: Encoder) -> set[str]:
    """The buffers that hold the thresholds of gates and their budgets."""
    gates = (name for name, module in encoder.named_modules() if isinstance(module, Gate))
    return {f"{gate}.{buffer}" for gate in gates for buffer in ("thresholds", "budgets")}


def _fits(tensor: Tensor, own: Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_complex()
    return plain and tensor.shape == own.shape and tensor.is_floating_point() == own.is_floating_point()


def _is_counter(name: str) -> bool:
    """Whether a tensor counts the batches that a norm has seen: it is no weight, and old files lack it."""
    return name.endswith(".num_batches_tracked")


def _counted(names: Mapping[str, Tensor]) -> int:
    return sum(not _is_counter(name) for name in names)


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:SHOWN], *(["..."] if len(names) > SHOWN else [])])


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
