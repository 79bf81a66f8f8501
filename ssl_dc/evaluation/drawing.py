"""What all pictures share: whether one can be drawn, how it is written, colours and legends of classes.

Matplotlib is imported when something is drawn, and without pyplot: drawing needs no display and leaves a caller's own plots
alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_dc.atomic_files import write_bytes
from ssl_dc.config import RunConfig
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.lettering import Lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg")
DPI = 150
NAMED_CLASSES = 20
"""More classes than these are not named in a picture: nobody could tell their colours apart."""


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
        import_matplotlib()
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'ssl-dc[plots]'") from None


def import_matplotlib() -> None:
    """Import matplotlib whatever the variable MPLBACKEND names.

    A notebook sets it to a module that another environment may lack, and matplotlib then refuses to be imported, for good
    in this process. Nothing here shows a picture, so no backend is needed; one that can be had is set all the same.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib.figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, with room for what stands beside its panels.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    check_matplotlib()
    from ssl_dc.evaluation.picture import Picture

    return Picture(figsize=(width, height), layout="constrained")


def described_run(config: RunConfig) -> str:
    """What a run is, in a few words for a title: data, objective, gating, budget, seed."""
    budgets = config.budget.budgets
    many = f" at {len(budgets)} budgets from {budgets[0]:g} to {budgets[-1]:g}" if len(budgets) > 1 else ""
    budget = many or (f" at budget {budgets[0]:g}" if budgets else "")
    return f"{config.data.name}, {config.objective.name}, {config.gating.name}{budget}, seed {config.seed}"


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format that the path's ending names.

    Raises:
        RunError: If it cannot be written.
    """
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=DPI)
    write_bytes(path, content.getvalue())


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def class_colours(classes: int) -> Any:
    """A colour for each class, (classes, 3 or 4)."""
    from matplotlib import colormaps

    if classes <= NAMED_CLASSES:
        return np.array(colormaps["tab10" if classes <= 10 else "tab20"].colors)[:classes]  # type: ignore[attr-defined]
    return colormaps["turbo"](np.linspace(0, 1, classes))


def add_class_legend(figure: Figure, classes: Sequence[str], colours: Any, lettering: Lettering) -> None:
    """Name the classes beside the panels, for which the figure is made wider."""
    from matplotlib.lines import Line2D

    # Matplotlib leaves out a name that begins with an underscore, so the names are set afterwards.
    handles = [Line2D([], [], color=colour, marker="o", linestyle="", label="-") for colour in colours[: len(classes)]]
    legend = figure.legend(handles=handles, loc="outside right center", frameon=False, handletextpad=0.2)
    for text, name in zip(legend.get_texts(), classes, strict=True):
        text.set_text(lettering.text(name))
        text.set_fontfamily(lettering.families)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + legend.get_window_extent().width / figure.dpi, height)
