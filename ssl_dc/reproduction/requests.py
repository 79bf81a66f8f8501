"""What of the paper can be asked for, by name: a table or a figure, the runs that it needs, how it is titled."""

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
"""Everything that can be asked for."""


@dataclass(frozen=True)
class TableRequest:
    """A table of the paper.

    Attributes:
        name: Such as ``table1``.
        scope: What its systems are run on, and how often.
        to: The data set that is transferred to, for a table of transfers; else None.
        to_root: Folder that holds that one's images.

    Raises:
        ConfigError: If a table of transfers has no ``to`` or an unknown one, or another table has one.
    """

    name: str
    scope: Scope
    to: str | None = None
    to_root: Path | None = None

    def __post_init__(self) -> None:
        transfers = self.spec.metric == "transfer"
        if transfers and self.to is None:
            raise ConfigError(f"{self.name} transfers to another data set; name it by --to, such as --to stl10")
        if not transfers and (self.to or self.to_root) is not None:
            raise _no_transfer(self.name)
        if self.to is not None:  # before anything is trained for it
            registry().find("data", data_part(self.to, self.to_root))

    @property
    def spec(self) -> TableSpec:
        """What it compares."""
        return TABLES[self.name]

    @property
    def title(self) -> str:
        """Its heading."""
        spec = self.spec
        return f"Table {spec.number}: {spec.title} ({self._images}, {self.scope.scale} scale, {spec.metric}, top-1 %)"

    @property
    def file_name(self) -> str:
        """What its files are called, without an ending."""
        return f"{self.name}-{self._images.replace(' ', '-')}-{self.scope.scale}"

    def runs(self) -> Iterator[PlannedRun]:
        """Every run that it needs."""
        return planned_runs((system for _, system in self.spec.systems), self.scope)

    @property
    def _images(self) -> str:
        return self.scope.dataset if self.to is None else f"{self.scope.dataset} to {self.to}"


@dataclass(frozen=True)
class FigureRequest:
    """A figure of the paper: it shows one run of each system and budget, that of the first seed.

    Attributes:
        name: Such as ``figure2``.
        scope: What its systems are run on; of the seeds, the first counts.
    """

    name: str
    scope: Scope

    @property
    def spec(self) -> FigureSpec:
        """What it shows."""
        return FIGURES[self.name]

    @property
    def seed(self) -> int:
        """The seed of the runs that are drawn."""
        return self.scope.seeds[0]

    @property
    def title(self) -> str:
        """Its heading."""
        spec, scope = self.spec, self.scope
        return f"Figure {spec.number}: {spec.title} ({scope.dataset}, {scope.scale} scale, seed {self.seed})"

    @property
    def file_name(self) -> str:
        """What its file is called, without an ending."""
        return f"{self.name}-{self.scope.dataset}-{self.scope.scale}"

    def runs(self) -> Iterator[PlannedRun]:
        """Every run that is drawn."""
        return planned_runs(self.spec.systems, replace(self.scope, seeds=[self.seed]))


Request: TypeAlias = TableRequest | FigureRequest


def request_for(name: str, scope: Scope, to: str | None = None, to_root: Path | None = None) -> Request:
    """The request for a table or figure.

    Args:
        name: One of :data:`NAMES`.
        scope: What its systems are run on, and how often.
        to: For a table of transfers, the data set that is transferred to.
        to_root: Folder that holds that one's images.

    Raises:
        ConfigError: If a table of transfers has no ``to``, or anything else has one.
    """
    if name in TABLES:
        return TableRequest(name, scope, to, to_root)
    if (to or to_root) is not None:
        raise _no_transfer(name)
    return FigureRequest(name, scope)


def _no_transfer(name: str) -> ConfigError:
    return ConfigError(f"{name} transfers to no other data set; leave out --to and --to-root")
