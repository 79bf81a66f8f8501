"""An embedding in the making: a folder of shards beside the file that they become, from which a killed job goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_dc.atomic_files import remove_tree, write_text
from ssl_dc.errors import ConfigError, RunError
from ssl_dc.evaluation.features import Features
from ssl_dc.json_files import read_record
from ssl_dc.printable import name_of
from ssl_dc.tensor_files import read_tensors, write_tensors

RECORD = "job.json"
"""The file of the folder that says what is embedded, and how."""


@dataclass(frozen=True)
class Shard:
    """The features of some rows.

    Attributes:
        rows: Numbers of the rows, ascending, (n,) int64. Images that were skipped are not among them.
        features: Their features and costs.
    """

    rows: torch.Tensor
    features: Features


class Job:
    """The shards of an embedding.

    Args:
        output: The file that they become.
        record: What is embedded, and how: whatever may not change between the calls of one job.
        images: How many images there are.
        shard_size: How many of them a shard has.
    """

    def __init__(self, output: Path, record: Mapping[str, Any], images: int, shard_size: int) -> None:
        self.folder = output.with_name(f"{output.name}.parts")
        self._record = {**record, "images": images, "shard_size": shard_size}
        self._images, self._size = images, shard_size
        self.count = -(-images // shard_size)

    def make_folder(self) -> None:
        """Make the folder, unless an earlier call has made it.

        Raises:
            RunError: If it cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {self.folder}: {error.strerror or error}") from error

    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet, as they were written.

        Raises:
            ConfigError: If the folder is that of another embedding.
            RunError: If its record cannot be written.
        """
        self._check_record()
        return [number for number in range(self.count) if not self._is_whole(number)]

    def rows_of(self, number: int) -> range:
        """The numbers of the rows of a shard."""
        return range(number * self._size, min(self._images, (number + 1) * self._size))

    def save(self, number: int, shard: Shard) -> None:
        """Write a shard, whole or not at all.

        Raises:
            RunError: If it cannot be written.
        """
        features = torch.from_numpy(shard.features.features)
        tensors = {"rows": shard.rows, "features": features, "macs": torch.from_numpy(shard.features.macs)}
        write_tensors(self._path(number), tensors)

    def shards(self) -> Iterator[Shard]:
        """All shards, in their order.

        Raises:
            RunError: If one is missing or damaged.
        """
        for number in range(self.count):
            if not self._path(number).is_file():
                raise RunError(
                    f"{self._path(number)} is not there. All processes must see the same folder. The same call makes up"
                    " what is missing"
                )
            tensors = read_tensors(self._path(number))
            yield Shard(tensors["rows"], Features(tensors["features"].numpy(), tensors["macs"].numpy(), {}))

    def remove(self) -> None:
        """Remove the folder."""
        remove_tree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.safetensors"

    def _is_whole(self, number: int) -> bool:
        """Whether a shard is there as it was written; a damaged one is made anew."""
        path = self._path(number)
        if not path.is_file():
            return False
        try:
            read_tensors(path)
        except RunError:
            return False
        return True

    def _check_record(self) -> None:
        path = self.folder / RECORD
        if not path.exists():
            if any(self.folder.glob("shard-*")):
                raise ConfigError(f"{self.folder} holds shards, but no {RECORD} that says of what; remove it")
            write_text(path, json.dumps(self._record, indent=2))
            return
        try:
            earlier = read_record(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read ({name_of(str(error))}); remove {self.folder}") from error
        other = [key for key in self._record if earlier.get(key) != self._record[key]]
        if other:
            raise ConfigError(
                f"{self.folder} holds shards of another embedding, which differs in {', '.join(other)}; remove it, or name"
                " another --output"
            )
