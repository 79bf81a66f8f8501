"""Pictures of evaluations. Matplotlib is imported here only, when something is drawn.

Figures are made without pyplot, so drawing neither needs a display nor changes anything of a caller's own plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_dc.atomic_files import write_bytes
from ssl_dc.data.base import Labels
from ssl_dc.errors import ConfigError
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ssl_dc.evaluation.gate_statistics import GateStatistics, Rates, SiteStatistics

Points = npt.NDArray[np.float32]
"""Places in the plane, (n, 2)."""

FORMATS = (".png", ".pdf", ".svg")
DPI = 150
PANEL = 2.6
"""Side of a panel, in inches: small enough for titles and legend to be read when a row of them is shown on a page."""
NAMED_CLASSES = 20
"""More classes than these are not named in a picture: nobody could tell their colours apart."""

Panel = tuple[str, Mapping[Route, Points], Labels]
"""One column of a figure: its title, the points (n, 2) of each route, the class (n,) of each point."""


def check_drawable(path: Path) -> None:
    """Make sure that a picture can be drawn and written, before anything is computed for it.

    Raises:
        ConfigError: If matplotlib is not installed, the ending names no known format, or the folder is not there.
    """
    check_matplotlib()
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"picture {path}: its ending must be one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"picture {path}: there is no folder {path.parent}")


def check_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401  # only whether it can be imported
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'ssl-dc[plots]'") from None


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format that the path's ending names.

    Raises:
        RunError: If it cannot be written.
    """
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=DPI)
    write_bytes(path, content.getvalue())


def draw_panels(panels: Sequence[Panel], *, classes: Sequence[str] = (), rows: Sequence[Route] = Route.BOTH) -> Figure:
    """Several projections in one figure, as the paper's Figure 2: a column for each, a row for each route.

    Args:
        panels: Title, points of each route and labels of each column, such as one for each budget.
        classes: Names of the classes, for a legend; there is none without names, or with more than 20.
        rows: All routes, from top to bottom; one that no panel has is left out.

    Raises:
        ValueError: If there are no panels.
    """
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("there is nothing to draw: no panels")
    routes = [route for route in rows if any(route in points for _, points, _ in panels)]
    size = max(len(classes), *(int(labels.max(initial=0)) + 1 for _, _, labels in panels))
    figure = Figure(figsize=(PANEL * len(panels) + 1.4, PANEL * len(routes) + 0.6), layout="constrained")
    grid = figure.subplots(len(routes), len(panels), squeeze=False)
    for column, (title, points, labels) in enumerate(panels):
        grid[min(routes.index(route) for route in points), column].set_title(title)
        for row, route in enumerate(routes):
            axes = grid[row, column]
            if route not in points:  # a run without gates beside others
                axes.axis("off")
                continue
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(str(route), fontsize="large")
            xy = points[route]
            axes.scatter(xy[:, 0], xy[:, 1], c=_colours(size)[labels], s=max(2, min(20, 6000 / len(xy))), linewidths=0)
    if 0 < len(classes) <= NAMED_CLASSES:
        _add_legend(figure, classes, _colours(size))
    return figure


def draw_gate_map(statistics: GateStatistics) -> Figure:
    """The heat map of gate statistics: for each class (row) and channel (column) how often the channel is on.

    Each site has a panel of its own; neighbouring sites of one channel, as whole-branch gates are, share one.
    """
    from matplotlib.figure import Figure

    maps = _maps(statistics.sites)
    classes = statistics.classes
    height = min(max(1.2, 0.14 * len(classes)), 4.0)
    figure = Figure(figsize=(10, (height + 0.55) * len(maps) + 0.8), layout="constrained")
    grid = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axes, heat in zip(grid, maps, strict=True):
        image = axes.imshow(heat.rates, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
        axes.set_title(heat.title, fontsize="small", loc="left")
        axes.tick_params(labelsize="x-small")
        if heat.columns:
            axes.set_xticks(range(len(heat.columns)), heat.columns, rotation=25, ha="right")
        if len(classes) <= NAMED_CLASSES:
            axes.set_yticks(range(len(classes)), classes)
        else:
            axes.set_ylabel("class", fontsize="small")
    bar = figure.colorbar(image, ax=list(grid), fraction=0.03, aspect=40)
    bar.set_label("share of images, on", fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return figure


class _Map(NamedTuple):
    """One panel of the heat map: (classes, columns) rates; names of the columns where they are sites, not channels."""

    title: str
    rates: Rates
    columns: tuple[str, ...] = ()


def _maps(sites: Sequence[SiteStatistics]) -> list[_Map]:
    maps: list[_Map] = []
    for site in sites:
        if site.channels > 1:
            described = f"{site.channels} channels: {site.dead} dead, {site.always_on} always on, {site.dynamic} dynamic"
            maps.append(_Map(f"{site.site}   ({described})", site.class_rates))
        elif maps and maps[-1].columns:
            last = maps.pop()
            maps.append(_Map(last.title, np.hstack([last.rates, site.class_rates]), (*last.columns, site.site)))
        else:
            maps.append(_Map("gates of one channel each", site.class_rates, (site.site,)))
    return maps


def _colours(classes: int) -> Any:
    """A colour for each class, (classes, 4)."""
    from matplotlib import colormaps

    if classes <= NAMED_CLASSES:
        return np.array(colormaps["tab10" if classes <= 10 else "tab20"].colors)[:classes]  # type: ignore[attr-defined]
    return colormaps["turbo"](np.linspace(0, 1, classes))


def _add_legend(figure: Figure, classes: Sequence[str], colours: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker="o", linestyle="", label=name)
        for name, colour in zip(classes, colours, strict=False)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, handletextpad=0.2)
