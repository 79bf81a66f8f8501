"""Figures of the paper: the features of trained encoders in the plane, and maps of their gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_dc import api
from ssl_dc.evaluation.drawing import check_matplotlib, save
from ssl_dc.evaluation.gate_statistics import GateStatistics
from ssl_dc.evaluation.projection import Panel, Projection, draw_panels, umap_module
from ssl_dc.evaluation.report import ReportTable
from ssl_dc.reproduction.plan import PlannedRun
from ssl_dc.reproduction.requests import FigureRequest
from ssl_dc.reproduction.runner import Store
from ssl_dc.reproduction.written import Written
from ssl_dc.routes import Route
from ssl_dc.trackers.base import Watcher

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

ROWS = (Route.GATED, Route.DENSE)
"""The rows of the figure from top to bottom, as in the paper."""


@dataclass(frozen=True)
class Pictures(Written):
    """The files of a figure.

    Attributes:
        title: The figure's title.
        paths: The files.
    """

    title: str
    paths: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """The files as plain values."""
        return {"title": self.title, "pictures": [str(path) for path in self.paths]}

    def tables(self) -> Sequence[ReportTable]:
        """The files as a table."""
        return [ReportTable(self.title, ("picture",), [(str(path),) for path in self.paths])]

    @property
    def text(self) -> str:
        """The paths, one a line."""
        return "".join(f"{path}\n" for path in self.paths)


class Figure:
    """A figure with a column for each run and a row for each route, and a map of the gates of each gated run.

    Args:
        request: The figure and its runs.
        store: The runs.
    """

    def __init__(self, request: FigureRequest, store: Store) -> None:
        self.request = request
        self.store = store
        self._projections: list[tuple[PlannedRun, Projection]] = []
        self._gates: list[tuple[PlannedRun, GateStatistics]] = []

    def check(self) -> None:
        """Check that UMAP and Matplotlib are installed.

        Raises:
            ConfigError: If one is not.
        """
        umap_module()
        check_matplotlib()

    def has(self, run: PlannedRun) -> bool:
        """Whether a run's weights are there. Its features are laid out in seconds, so they are not stored."""
        return self.store.has_weights(run)

    def add(self, run: PlannedRun, watchers: Iterable[Watcher], say: Callable[[str], None]) -> None:
        """Lay out the features of a run, and collect the statistics of its gates if it has any."""
        path = self.store.trained(run, watchers, say)
        say(f"umap {run.name}")
        self._projections.append((run, api.evaluate(path, "umap")))
        if run.system.budgeted:
            say(f"gates {run.name}")
            self._gates.append((run, api.evaluate(path, "gates")))

    def write(self) -> Pictures:
        """Write the figure and the gate maps as PNG."""
        pictures = {
            self._path(self.request.file_name): self._figure(),
            **{self._path(f"gates-{run.name}"): self._gate_map(run, gates) for run, gates in self._gates},
        }
        for path, picture in pictures.items():
            save(picture, path)
        return Pictures(self.request.title, tuple(pictures))

    def _path(self, name: str) -> Path:
        return self.store.folder / f"{name}.png"

    def _figure(self) -> Picture:
        panels = [
            Panel(_heading(run, "\n"), found.routes, found.labels, found.captions) for run, found in self._projections
        ]
        picture = draw_panels(panels, classes=self._projections[0][1].classes, rows=ROWS)
        picture.suptitle(self.request.title)
        return picture

    def _gate_map(self, run: PlannedRun, gates: GateStatistics) -> Picture:
        picture = gates.draw()
        scope = self.request.scope
        picture.suptitle(f"Gates of {_heading(run, ', ')} ({scope.dataset}, {scope.scale} scale, seed {run.seed})")
        return picture


def _heading(run: PlannedRun, separator: str) -> str:
    return run.system.title if run.budget is None else f"{run.system.title}{separator}budget {run.budget:g}"
