"""Features of a whole data set, written to a file. The processes of a launch share the work, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ssl_dc.atomic_files import remove_partials
from ssl_dc.data.base import DataSet
from ssl_dc.data.workers import loaded, prepare_worker, worker_failures
from ssl_dc.distributed import broadcast_from_main, failing_together, rank, world_size
from ssl_dc.embedding.files import files_of, writer_for
from ssl_dc.embedding.job import Job, Shard
from ssl_dc.embedding.rows import PreparedRows, Rows, without_skipped
from ssl_dc.errors import ConfigError, DataError
from ssl_dc.evaluation.features import BATCH, Features, check_finite, extractor
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.model import Model
from ssl_dc.printable import name_of
from ssl_dc.routes import Route
from ssl_dc.run_lock import sole_writer
from ssl_dc.tensor_files import checksum
from ssl_dc.trackers.base import Watcher, phase

SHARD = 1024
"""Images of a shard by default: what a killed job may have to compute once more in each process."""
SHOWN = 10
"""How many images that were left out a report names."""


@dataclass(frozen=True)
class Embedding(Report):
    """A file of features.

    Attributes:
        output: The file.
        route: The route that the features come from.
        found: What was understood of the user's files, in words; empty for a data set whose files are always the same.
        sizes: How many images each part of the data set has.
        images: How many rows the file has.
        feature_dim: Width of the features.
        macs: Mean cost of an image, in MACs.
        ratio: The same as a share of the dense cost.
        left_out: What is said of each image that could not be read.
        computed: How many images this call went through; an earlier one did the others.
        seconds: How long that took.
    """

    output: str
    route: Route
    found: str
    sizes: dict[str, int]
    images: int
    feature_dim: int
    macs: float
    ratio: float
    left_out: tuple[str, ...]
    computed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Speed of this call; 0 if an earlier one had computed all."""
        return self.computed / self.seconds if self.computed else 0.0

    def as_json(self) -> dict[str, Any]:
        """The embedding as plain values."""
        return {**vars(self), "route": str(self.route), "images_per_second": self.images_per_second}

    def tables(self) -> Sequence[ReportTable]:
        """What was written, what it cost, and what was left out."""
        speed = f"{self.images_per_second:,.0f}" if self.computed else "-"
        cells = (
            str(self.route),
            f"{self.images:,}",
            f"{self.feature_dim:,}",
            f"{self.macs:,.0f}",
            f"{self.ratio:.4f}",
            speed,
        )
        parts = ", ".join(f"{name} {size:,}" for name, size in self.sizes.items())
        notes = [self.found] if self.found else []
        notes += [f"images: {parts}; {self.images * self.macs:.3e} MACs paid in all."]
        if self.computed < sum(self.sizes.values()):
            notes.append(f"An earlier call had computed {sum(self.sizes.values()) - self.computed:,} of them.")
        if self.left_out:
            count = len(self.left_out)
            notes.append(
                "1 image could not be read, and has no row:"
                if count == 1
                else f"{count:,} images could not be read, and have no row:"
            )
            notes += [f"  {reason}" for reason in self.left_out[:SHOWN]]
            notes += [f"  and {len(self.left_out) - SHOWN:,} more"] if len(self.left_out) > SHOWN else []
        columns = ("route", "rows", "features", "MACs an image", "share of dense cost", "images/s")
        return [ReportTable("Features", columns, [cells], note="\n".join(notes))]


def write_embedding(
    model: Model,
    data_set: DataSet,
    output: Path,
    route: Route,
    *,
    splits: Sequence[str] = (),
    shard_size: int = SHARD,
    workers: int = 0,
    watchers: Sequence[Watcher] = (),
) -> Embedding:
    """Write the features of all images of a data set, not augmented, in evaluation mode.

    In a launch of several processes all of them call it, on a disk that all see. The shards are batches of the same images
    whatever the number of processes is, so that the file is the same.

    Args:
        model: The model; it runs where its weights are.
        data_set: The images.
        output: The file, ``.parquet`` or ``.npy``, which does not exist yet. Shards are kept beside it until it is whole.
        route: The route.
        splits: The parts of the data set to take; by default all.
        shard_size: Images of a shard.
        workers: Processes that prepare images, for each process of the launch.
        watchers: Told of phases, and of each batch of the first process as a step.

    Raises:
        ConfigError: If the file is there already, its ending names no format, or shards of another embedding are there.
        DataError: If an image cannot be read and is not to be skipped.
        RunError: If features are not finite, something cannot be written, or another process has failed.
    """
    writer_for(output)  # before anything is computed
    with phase(watchers, "reading the pictures"):
        rows = Rows(data_set, splits)
    record = {
        "route": str(route),
        "model": checksum({name: tensor.detach().cpu() for name, tensor in model.encoder.state_dict().items()}),
        "precision": str(model.dtype),
        "device": model.device.type,
        "data": rows.fingerprints(),
        "splits": rows.sizes,
    }
    job = Job(output, record, len(rows), shard_size)
    with ExitStack() as held:
        missing: list[int] = []
        with failing_together():
            if rank() == 0:
                _check_free(output, job)
                job.make_folder()
                held.enter_context(sole_writer(job.folder))
                missing = job.missing()
        missing = broadcast_from_main(missing)
        began = time.monotonic()
        with failing_together(), worker_failures():
            _compute(model, rows, route, job, missing[rank() :: world_size()], workers, watchers)
        seconds = time.monotonic() - began
        made: list[Embedding] = []
        with failing_together():
            if rank() == 0:
                with phase(watchers, "writing the file"):
                    said = {"route": str(route), "model": str(record["model"])}
                    numbers, macs = _written(job, rows, output, model.feature_dim, said)
                embedding = Embedding(
                    output=str(output),
                    route=route,
                    found=rows.found,
                    sizes=rows.sizes,
                    images=len(numbers),
                    feature_dim=model.feature_dim,
                    macs=macs,
                    ratio=macs / model.cost.dense_macs,
                    left_out=tuple(map(rows.reason, np.setdiff1d(np.arange(len(rows)), numbers).tolist())),
                    computed=sum(len(job.rows_of(number)) for number in missing),
                    seconds=seconds,
                )
                made = [embedding]
                job.remove()
    (embedding,) = broadcast_from_main(made)
    return embedding


def _check_free(output: Path, job: Job) -> None:
    """Make sure that the output can be written. Shards that are there are those of a call that had not written it whole.

    Raises:
        ConfigError: If there is something already.
    """
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {output.parent}")
    for path in [output] if job.folder.is_dir() else files_of(output):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"--output {path}: it is there already; name another file, or remove it")


def _written(job: Job, rows: Rows, output: Path, width: int, said: Mapping[str, str]) -> tuple[npt.NDArray[Any], float]:
    """Write the file; the numbers of the rows that it has, and the mean of their costs."""
    numbers: list[npt.NDArray[Any]] = []
    macs: list[npt.NDArray[Any]] = []

    def noted() -> Iterator[Shard]:
        for shard in job.shards():
            numbers.append(shard.rows.numpy())
            macs.append(shard.features.macs)
            yield shard

    for path in files_of(output):
        remove_partials(path)
    writer_for(output)(output, noted(), rows, width, said)
    costs = np.concatenate(macs)
    return np.concatenate(numbers), float(costs.mean()) if len(costs) else 0.0


def _compute(
    model: Model, rows: Rows, route: Route, job: Job, numbers: Sequence[int], workers: int, watchers: Sequence[Watcher]
) -> None:
    """Compute some shards. A shard is written as soon as all its batches are there."""
    batches = [(number, part) for number in numbers for part in _batches(job.rows_of(number))]
    loader: DataLoader[Any] = DataLoader(
        PreparedRows(rows, model.transform),
        batch_sampler=[list(part) for _, part in batches],
        collate_fn=without_skipped,
        num_workers=workers,
        worker_init_fn=prepare_worker,
    )
    told = watchers if rank() == 0 else ()
    with (
        phase(watchers, f"features by the {route} route, of {len(rows):,} pictures"),
        _steps_told(told, len(batches)),
        closing(loaded(loader)) as prepared,
    ):
        take = extractor(model, route)
        parts: list[Shard] = []
        for step, ((number, part), (found, images)) in enumerate(zip(batches, prepared, strict=True), start=1):
            if len(found):
                features = take(images.to(model.device, memory_format=torch.channels_last))
                names = partial(_name, rows, found)
                check_finite(features.features, f"the features of the {route} route", names)
                parts.append(Shard(found, features))
            if part.stop == job.rows_of(number).stop:
                job.save(number, _joined(parts, model.feature_dim))
                parts = []
            for watcher in told:
                watcher.on_step_end(step)


def _name(rows: Rows, numbers: Tensor, place: int) -> str:
    """What the image at a place of a batch is called, by the numbers of the batch's rows."""
    return name_of(rows[int(numbers[place])].name)


@contextmanager
def _steps_told(watchers: Sequence[Watcher], batches: int) -> Iterator[None]:
    """Tell watchers that the batches begin and end, as the steps of a training do.

    Raises:
        DataError: If the block raises one. It says that the same call goes on.
    """
    for watcher in watchers:
        watcher.on_batch_size(BATCH * world_size())
        watcher.on_start(0, max(1, batches))
    try:
        yield
    except DataError as error:
        raise DataError(f"{error} What was computed is kept, and the same call goes on with it.") from error
    finally:
        for watcher in watchers:
            watcher.on_end()


def _batches(rows: range) -> Iterator[range]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _joined(parts: Sequence[Shard], width: int) -> Shard:
    if not parts:
        return Shard(torch.empty(0, dtype=torch.int64), Features(np.empty((0, width), np.float32), np.empty(0), {}))
    return Shard(
        torch.cat([part.rows for part in parts]),
        Features(
            np.concatenate([part.features.features for part in parts]),
            np.concatenate([part.features.macs for part in parts]),
            {},
        ),
    )
