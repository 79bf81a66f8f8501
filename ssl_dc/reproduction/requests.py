"""Requests for a table or a figure of the paper by name, with the runs that it needs and its title."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ssl_dc.errors import ConfigError
from ssl_dc.plugins.registry import registry
from ssl_dc.reproduction.plan import PlannedRun, Scope, data_part, planned_runs
from ssl_dc.reproduction.systems import FIGURES, TABLES, FigureSpec, TableSpec

NAMES = (*TABLES, *FIGURES)
"""The names of all tables and figures."""


@dataclass(frozen=True)
class TableRequest:
    """A table of the paper.

    Attributes:
        name: Such as ``table1``.
        scope: The data, the scale, and how often systems are run.
        to: The target data set of a table of transfers, otherwise None.
        to_root: Folder with the target's images.

    Raises:
        ConfigError: If a table of transfers has no target or an unknown one, or another table has a target.
    """

    name: str
    scope: Scope
    to: str | None = None
    to_root: Path | None = None

    def __post_init__(self) -> None:
        transfers = self.spec.metric == "transfer"
        if transfers and self.to is None:
            raise ConfigError(f"{self.name} transfers to another data set; name it with --to, for example --to stl10")
        if not transfers and (self.to or self.to_root) is not None:
            raise _no_transfer(self.name)
        if self.to is not None:  # before anything is trained for it
            registry().find("data", data_part(self.to, self.to_root))

    @property
    def spec(self) -> TableSpec:
        """The specification of the table."""
        return TABLES[self.name]

    @property
    def title(self) -> str:
        """The title."""
        spec = self.spec
        return f"Table {spec.number}: {spec.title} ({self._images}, {self.scope.scale} scale, {spec.metric}, top-1 %)"

    @property
    def file_name(self) -> str:
        """The name of its files, without an ending."""
        return f"{self.name}-{self._images.replace(' ', '-')}-{self.scope.scale}"

    def runs(self) -> Iterator[PlannedRun]:
        """Every run that it needs."""
        return planned_runs((system for _, system in self.spec.systems), self.scope)

    @property
    def _images(self) -> str:
        return self.scope.dataset if self.to is None else f"{self.scope.dataset} to {self.to}"


@dataclass(frozen=True)
class FigureRequest:
    """A figure of the paper. It shows the run of the first seed for each system and budget.

    Attributes:
        name: Such as ``figure2``.
        scope: The data, the scale and the budgets. Only the first seed is used.
    """

    name: str
    scope: Scope

    @property
    def spec(self) -> FigureSpec:
        """The specification of the figure."""
        return FIGURES[self.name]

    @property
    def seed(self) -> int:
        """The seed of the runs that are drawn."""
        return self.scope.seeds[0]

    @property
    def title(self) -> str:
        """The title."""
        spec, scope = self.spec, self.scope
        return f"Figure {spec.number}: {spec.title} ({scope.dataset}, {scope.scale} scale, seed {self.seed})"

    @property
    def file_name(self) -> str:
        """The name of its file, without an ending."""
        return f"{self.name}-{self.scope.dataset}-{self.scope.scale}"

    def runs(self) -> Iterator[PlannedRun]:
        """Every run that is drawn."""
        return planned_runs(self.spec.systems, replace(self.scope, seeds=[self.seed]))


Request: TypeAlias = TableRequest | FigureRequest


def request_for(name: str, scope: Scope, to: str | None = None, to_root: Path | None = None) -> Request:
    """The request for a table or figure.

    Args:
        name: One of :data:`NAMES`.
        scope: The data, the scale, and how often systems are run.
        to: The target data set of a table of transfers.
        to_root: Folder with the target's images.

    Raises:
        ConfigError: If a table of transfers has no target, or anything else has one.
    """
    if name in TABLES:
        return TableRequest(name, scope, to, to_root)
    if (to or to_root) is not None:
        raise _no_transfer(name)
    return FigureRequest(name, scope)


def _no_transfer(name: str) -> ConfigError:
    return ConfigError(f"{name} does not transfer to another data set; leave out --to and --to-root")
