"""The plan of a training, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.quantities import counted, gibibytes, in_words
from ssl_dc.training_plan.counts import Counts
from ssl_dc.training_plan.needs import Needs

SLACK = 1.25
"""A training is refused if it needs this many times the memory of the machine: estimates err."""


@dataclass(frozen=True)
class Plan(Report):
    """What a training will do and take.

    Attributes:
        pictures: How many images it has.
        network: The network, in words.
        recipe: Objective, optimiser and learning rate, in words.
        views: The views of an image, with their sizes and routes, in words.
        machine: What it trains on, in words.
        epochs: Passes over the training images.
        steps_per_epoch: Steps of an epoch.
        steps: Optimiser steps that are left to do.
        batch_size: Images of a step, over all processes.
        needs: Time, memory and files; None if no step was tried.
        untried: Why none was tried; empty if some were.
        memory_there: Bytes of memory that the machine has, or the GPU.
        folder: The run's folder.
        disk_free: Bytes that are free there.
        warnings: What will not do, each with the option to change.
        weights: The weights that the encoder starts from, in words; empty if they are drawn.
    """

    pictures: Counts
    network: str
    recipe: str
    views: str
    machine: str
    epochs: int
    steps_per_epoch: int
    steps: int
    batch_size: int
    needs: Needs | None
    untried: str
    memory_there: int
    folder: str
    disk_free: int
    warnings: tuple[str, ...] = ()
    weights: str = ""

    def check(self) -> None:
        """Refuse a training that the system would kill.

        Raises:
            ConfigError: If it needs far more memory than there is. Estimates err, so a little more is only warned of.
        """
        if self.needs is not None and self.needs.memory > SLACK * self.memory_there:
            raise ConfigError(next(warning for warning in self.warnings if "of memory" in warning))

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**asdict(self), "warnings": list(self.warnings)}

    def tables(self) -> Sequence[ReportTable]:
        """The plan on one screen."""
        rows = [
            ("pictures", self.pictures.in_words()),
            ("training", self._training()),
            ("recipe", self.recipe),
            ("views", self.views),
            ("network", self._network()),
            *([("weights", self.weights)] if self.weights else []),
            ("MACs an image", self._macs()),
            ("time", self._time()),
            ("memory", self._memory()),
            ("files", self._files()),
        ]
        return [ReportTable("Plan", ("", self.machine), rows, note="\n".join(self._notes()))]

    def brief(self) -> str:
        """The plan of what is left of a run, in one line."""
        return f"{self.folder}: {self._training()}; time: {self._time()}; memory: {self._memory()}"

    def _training(self) -> str:
        whole = self.epochs * self.steps_per_epoch
        left = "" if self.steps == whole else f"; {self.steps:,} of these are left"
        return (
            f"{counted(self.epochs, 'epoch')} of {counted(self.steps_per_epoch, 'step')} = {whole:,} steps of"
            f" {self.batch_size:,} images{left}"
        )

    def _network(self) -> str:
        return self.network if self.needs is None else f"{self.network}, {self.needs.parameters:,} parameters with heads"

    def _macs(self) -> str:
        if self.needs is None:
            return "not known"
        gated = "" if self.needs.gated_macs is None else f", {self.needs.gated_macs:,} gated"
        return f"{self.needs.dense_macs:,} dense{gated}"

    def _time(self) -> str:
        if self.needs is None:
            return "not known"
        return (
            f"about {in_words(self.needs.seconds)}: {self.needs.step_seconds:.3g} s a step,"
            f" {in_words(self.needs.evaluation_seconds)} for the evaluation at the end"
        )

    def _memory(self) -> str:
        needed = "not known, " if self.needs is None else f"about {gibibytes(self.needs.memory)} "
        return f"{needed}of {gibibytes(self.memory_there)}"

    def _files(self) -> str:
        size = "" if self.needs is None else f", about {max(1, round(self.needs.disk / 2**20)):,} MiB"
        return f"{self.folder}{size}"

    def _notes(self) -> Iterator[str]:
        if self.untried:
            yield f"Time and memory are not known: {self.untried}."
        for warning in self.warnings:
            yield f"Warning: {warning}"
