"""Features laid out in the plane by UMAP or t-SNE, as in Figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ssl_dc.data.base import Labels, Splits
from ssl_dc.data.subsets import sample
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.drawing import NAMED_CLASSES, add_class_legend, class_colours
from ssl_dc.evaluation.features import FeatureArray, extract, labels_of
from ssl_dc.evaluation.options import ProjectionOptions
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.evaluation.scores import own_splits
from ssl_dc.model import Model
from ssl_dc.routes import Route

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Method = Literal["umap", "tsne"]

Points = npt.NDArray[np.float32]
"""Places in the plane, (n, 2)."""

Panel = tuple[str, Mapping[Route, Points], Labels]
"""One column of a figure: its title, the points (n, 2) of each route, the class (n,) of each point."""

PANEL_INCHES = 2.6
"""Side of a panel: small enough that titles and legend can be read when a row of panels is shown on a page."""

LEAST_IMAGES = 10
"""Fewer have no neighbourhoods to lay out."""

UMAP_NEIGHBOURS = 15
TSNE_PERPLEXITY = 30.0


@dataclass(frozen=True)
class Projection(Report):
    """Where a method puts images in the plane, on each route.

    Attributes:
        method: ``umap`` or ``tsne``.
        seed: Of the method.
        routes: For each route the points (n, 2); each route is laid out by itself, so only shapes compare, not places.
        labels: Class of each image, (n,).
        classes: Names of the classes.
    """

    method: Method
    seed: int
    routes: dict[Route, Points]
    labels: Labels
    classes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The projection as plain values."""
        return {
            "protocol": self.method,
            "seed": self.seed,
            "test_images": len(self.labels),
            "classes": list(self.classes),
            "labels": self.labels.tolist(),
            "routes": {str(route): points.tolist() for route, points in self.routes.items()},
        }

    def tables(self) -> Sequence[ReportTable]:
        """How many images are laid out on each route."""
        title = f"{self.method} of held-out images"
        return [ReportTable(title, ("route", "images"), [(str(r), f"{len(p):,}") for r, p in self.routes.items()])]

    def draw(self) -> Figure:
        """A panel for each route, coloured by class."""
        panels = [(f"{self.method}, {len(self.labels):,} images", self.routes, self.labels)]
        return draw_panels(panels, classes=self.classes)


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
    figure = Figure(figsize=(PANEL_INCHES * len(panels) + 1.4, PANEL_INCHES * len(routes) + 0.6), layout="constrained")
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
            axes.scatter(xy[:, 0], xy[:, 1], c=class_colours(size)[labels], s=max(2, min(20, 6000 / len(xy))), linewidths=0)
    if 0 < len(classes) <= NAMED_CLASSES:
        add_class_legend(figure, classes, class_colours(size))
    return figure


def umap(model: Model, options: ProjectionOptions) -> Projection:
    """Run the protocol ``umap`` on the data set of the model's config; see :func:`project`."""
    return project(model, own_splits(model), "umap", points=options.points)


def tsne(model: Model, options: ProjectionOptions) -> Projection:
    """Run the protocol ``tsne`` on the data set of the model's config; see :func:`project`."""
    return project(model, own_splits(model), "tsne", points=options.points)


def project(model: Model, splits: Splits, method: Method, *, points: int = 2000, seed: int = 0) -> Projection:
    """Lay out held-out images by their features, on each route of a model.

    Args:
        model: The model.
        splits: The held-out images are taken, balanced over classes if there are more than ``points``.
        method: ``umap`` or ``tsne``.
        points: At most this many images.
        seed: Seed of the method: the same seed gives the same picture.

    Raises:
        ConfigError: If umap-learn is needed and not installed, or there are too few images.
    """
    if method == "umap":
        umap_module()  # before the features are computed, which may take long
    images = sample(splits.test, points)
    labels = labels_of(images)
    if len(images) < LEAST_IMAGES:
        raise ConfigError(f"{method} needs at least {LEAST_IMAGES} held-out images; there are {len(images)}")
    features = extract(model, images, model.routes, workers=model.config.training.workers)
    routes = {route: embedded(some.features, method, seed=seed) for route, some in features.items()}
    return Projection(method, seed, routes, labels, splits.classes)


def embedded(features: FeatureArray, method: Method, *, seed: int = 0) -> Points:
    """Features (n, d) as points (n, 2) float32, neighbours near each other.

    Args:
        features: At least 10 of them.
        method: ``umap`` (15 neighbours) or ``tsne`` (perplexity 30), fewer where there are few features.
        seed: Of the method.

    Raises:
        ConfigError: If umap-learn is needed and not installed.
    """
    n = len(features)
    if method == "umap":
        # With a seed UMAP runs on one thread, and warns unless that is asked for.
        layout = umap_module().UMAP(n_neighbors=min(UMAP_NEIGHBOURS, n - 1), random_state=seed, n_jobs=1)
        with _threads_kept():
            return np.asarray(layout.fit_transform(features), dtype=np.float32)
    # Imported here: it takes longer than most evaluations need for their first result.
    from sklearn.manifold import TSNE

    layout = TSNE(perplexity=min(TSNE_PERPLEXITY, (n - 1) / 3), init="pca", random_state=seed)
    return np.asarray(layout.fit_transform(features), dtype=np.float32)


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Put the number of threads back: numba, which UMAP runs on, sets it to all processors for the whole process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def umap_module() -> Any:
    """``umap``.

    Raises:
        ConfigError: If umap-learn is not installed.
    """
    try:
        return import_module("umap")
    except ImportError:
        raise ConfigError("UMAP needs umap-learn: pip install 'ssl-dc[umap]'") from None
