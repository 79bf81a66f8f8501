"""Resume points. Each is written whole or not at all; checksums tell which is the newest undamaged one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ssl_dc.atomic_files import flush_folder, is_partial, mebibytes, partial_of, remove_tree, write_text
from ssl_dc.errors import RunError
from ssl_dc.json_files import read_record
from ssl_dc.printable import name_of
from ssl_dc.tensor_files import read_tensors, write_tensors

_LARGEST_RECORD = 2**24
"""Size in bytes of ``progress.json``, at most."""
FILES = {"learner", "optimizer"}
"""The groups of tensors of a resume point: the network with its heads, and the optimiser's state."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to continue as if it had never stopped.

    Random states are not needed: every draw is a function of the seed and the step (:mod:`ssl_dc.seeds`).

    Attributes:
        step: Optimiser steps taken.
        tensors: The tensors of each of :data:`FILES`, by name.
        values: Everything else, as JSON holds it.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    values: Mapping[str, Any]


class CheckpointStore:
    """A folder of resume points, one folder each.

    Args:
        folder: It is made when the first resume point is saved.
        keep: Number of resume points that are kept, the newest ones.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a resume point. Then delete older ones beyond ``keep``, and later ones, which were damaged.

        Raises:
            RunError: If it cannot be written. The earlier ones are untouched.
        """
        final = self.folder / folder_name(checkpoint.step)
        partial = partial_of(final)
        try:
            for killed in filter(is_partial, self.folder.glob(".step-*.partial")):
                remove_tree(killed)
            partial.mkdir(parents=True)
            sums = {name: write_tensors(partial / f"{name}.safetensors", part) for name, part in checkpoint.tensors.items()}
            record = {"step": checkpoint.step, "values": checkpoint.values, "sha256": sums}
            write_text(partial / "progress.json", json.dumps({**record, "checksum": _checksum(record)}, indent=2))
            remove_tree(final)
            partial.rename(final)
            flush_folder(self.folder)
        except (OSError, RunError) as error:
            size = sum(tensor.nbytes for part in checkpoint.tensors.values() for tensor in part.values())
            raise RunError(
                f"the resume point of step {checkpoint.step} cannot be written; it takes {mebibytes(size)}. {error}."
                f" Last good resume point: {self.newest() or 'there is none'}"
            ) from error
        finally:
            remove_tree(partial)
        kept = [folder for folder in self._newest_first() if folder.name <= final.name][: self.keep]
        for folder in self._newest_first():
            if folder not in kept:
                remove_tree(folder)

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest undamaged resume point, or None, and what is wrong with the newer ones."""
        problems: list[str] = []
        for folder in self._newest_first():
            try:
                return self._read(folder), problems
            except RunError as error:
                problems.append(str(error))
        return None, problems

    def newest(self) -> Path | None:
        """The folder of the newest resume point, damaged or not; None if there is none."""
        return next(iter(self._newest_first()), None)

    def newest_step(self) -> int:
        """Optimiser steps at the newest resume point, damaged or not; 0 if there is none."""
        newest = self.newest()
        number = newest.name.removeprefix("step-") if newest else ""
        return int(number) if number.isdecimal() else 0

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)

    def _read(self, folder: Path) -> Checkpoint:
        path = folder / "progress.json"
        try:
            record = read_record(path, _LARGEST_RECORD)
            recorded = record.pop("checksum")
            step, values, sums = int(record["step"]), dict(record["values"]), dict(record["sha256"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is not the record of a resume point: {name_of(str(error))}") from error
        if recorded != _checksum(record) or not sums.keys() <= FILES or folder.name != folder_name(step):
            raise RunError(f"{path} is damaged: its checksum is not the one that it was written with")
        tensors = {name: read_tensors(folder / f"{name}.safetensors", digest) for name, digest in sums.items()}
        return Checkpoint(step, tensors, values)


def folder_name(step: int) -> str:
    """The name of the folder of a resume point."""
    return f"step-{step:08d}"


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as named tensors. ``NUMBER.KEY`` belongs to the parameter of that number.

    Raises:
        RunError: If it keeps something that is not a tensor.
    """
    return {f"{number}.{key}": value for number, key, value in _optimizer_state(optimizer)}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser of the same parameters the state that :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _optimizer_state(optimizer: Optimizer) -> Iterator[tuple[int, str, Tensor]]:
    for number, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if not isinstance(value, Tensor):
                raise RunError(
                    f"optimiser {type(optimizer).__name__} keeps {key!r} as a {type(value).__name__}; a resume point holds"
                    " tensors only"
                )
            yield number, key, value
