"""Features laid out in the plane by UMAP or t-SNE, as in Figure 2 of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ssl_dc.data.base import Labels, Splits
from ssl_dc.data.subsets import sample
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.drawing import NAMED_CLASSES, add_class_legend, class_colours, described_run, new_figure
from ssl_dc.evaluation.features import FeatureArray, extract, labels_and_classes
from ssl_dc.evaluation.knn import leave_one_out
from ssl_dc.evaluation.lettering import Lettering
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

PANEL_INCHES = 2.6
"""Side of a panel: small enough that titles and legend can be read when a row of panels is shown on a page."""

LEAST_IMAGES = 10
"""Fewer have no neighbourhoods to lay out."""

NAMES = {"umap": "UMAP", "tsne": "t-SNE"}
"""What people call the methods."""

SPREAD = 1e-6
"""Features that differ by a smaller share of their size are the same but for rounding."""

UMAP_NEIGHBOURS = 15
TSNE_PERPLEXITY = 30.0


class Panel(NamedTuple):
    """One column of a figure.

    Attributes:
        title: Stands above the column.
        points: Where the images are, for each route (n, 2).
        labels: Class of each image, (n,).
        captions: What each route costs and reaches, below the title.
    """

    title: str
    points: Mapping[Route, Points]
    labels: Labels
    captions: Mapping[Route, str] = {}


@dataclass(frozen=True)
class Projection(Report):
    """Where a method puts images in the plane, on each route.

    Attributes:
        method: ``umap`` or ``tsne``.
        run: The run that the images' features are of, in words.
        seed: Seed of the method.
        routes: For each route the points (n, 2). Each route is laid out by itself, so shapes compare, but places do not.
        ratios: Mean cost of the images on each route, as a share of the dense cost.
        knn1: Share of the images whose nearest other one has their class, in percent, on each route; empty without labels.
        labels: Class of each image, (n,); all 0 without labels.
        classes: Names of the classes; empty without labels.
        collapsed: Routes on which the features of all images are the same.
    """

    method: Method
    run: str
    seed: int
    routes: dict[Route, Points]
    ratios: dict[Route, float]
    knn1: dict[Route, float]
    labels: Labels
    classes: tuple[str, ...]
    collapsed: tuple[Route, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The projection as plain values."""
        return {
            "protocol": self.method,
            "run": self.run,
            "seed": self.seed,
            "test_images": len(self.labels),
            "classes": list(self.classes),
            "labels": self.labels.tolist(),
            "routes": {str(route): points.tolist() for route, points in self.routes.items()},
            "ratios": {str(route): ratio for route, ratio in self.ratios.items()},
            "knn1_among_them": {str(route): top1 for route, top1 in self.knn1.items()},
            "collapsed": [str(route) for route in self.collapsed],
        }

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each image on each route: its place, its number, and its class where there are labels."""
        named = [{"class": self.classes[label]} if self.classes else {} for label in self.labels]
        return [
            {"route": str(route), "image": number, **named[number], "x": float(x), "y": float(y)}
            for route, points in self.routes.items()
            for number, (x, y) in enumerate(points)
        ]

    def tables(self) -> Sequence[ReportTable]:
        """What the images cost and reach on each route."""
        rows = [
            (str(route), f"{len(points):,}", f"{self.ratios[route]:.4f}", f"{self.knn1[route]:.2f}" if self.knn1 else "-")
            for route, points in self.routes.items()
        ]
        notes = ["kNN-1: share of the images whose nearest other one has their class"] if self.knn1 else []
        notes += [
            f"THE {route} ROUTE HAS COLLAPSED: its features are the same for all images, and are drawn as one point"
            for route in self.collapsed
        ]
        columns = ("route", "images", "share of dense cost", "kNN-1 %, among them")
        return [ReportTable(f"{self.method} of held-out images", columns, rows, note="\n".join(notes))]

    @property
    def captions(self) -> dict[Route, str]:
        """What each route costs and reaches, in a few words."""
        said = {}
        for route, ratio in self.ratios.items():
            top1 = f", kNN-1 {self.knn1[route]:.1f} %" if self.knn1 else ""
            said[route] = f"{route}, cost {ratio:.2f}{top1}{', COLLAPSED' if route in self.collapsed else ''}"
        return said

    def draw(self) -> Figure:
        """A panel for each route, coloured by class."""
        figure = draw_panels(
            [Panel("", self.routes, self.labels, self.captions)],
            classes=self.classes,
            rows=list(self.routes),
            method=self.method,
        )
        figure.suptitle(f"{NAMES[self.method]} of {len(self.labels):,} held-out images\n{self.run}", fontsize="medium")
        return figure


def draw_panels(
    panels: Sequence[Panel], *, classes: Sequence[str] = (), rows: Sequence[Route] = Route.BOTH, method: Method = "umap"
) -> Figure:
    """Several projections in one figure, as the paper's Figure 2: a column for each, a row for each route.

    Args:
        panels: The columns, such as one for each budget.
        classes: Names of the classes, for a legend; there is none without names, or with more than 20.
        rows: All routes, from top to bottom; one that no panel has is left out.
        method: What the points were laid out by, which names the axes.

    Raises:
        ValueError: If there are no panels.
        ConfigError: If matplotlib is not installed.
    """
    if not panels:
        raise ValueError("there is nothing to draw: no panels")
    routes = [route for route in rows if any(route in panel.points for panel in panels)]
    size = max(len(classes), *(int(panel.labels.max(initial=0)) + 1 for panel in panels))
    figure = new_figure((PANEL_INCHES + 0.3) * len(panels) + 0.4, (PANEL_INCHES + 0.3) * len(routes) + 0.8)
    grid = figure.subplots(len(routes), len(panels), squeeze=False)
    for column, panel in enumerate(panels):
        first = min(routes.index(route) for route in panel.points)
        for row, route in enumerate(routes):
            axes = grid[row, column]
            if route not in panel.points:  # a run without gates beside others
                axes.axis("off")
                continue
            title = [panel.title if row == first else "", panel.captions.get(route, "")]
            axes.set_title("\n".join(filter(None, title)), fontsize="medium" if panel.title else "small")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"{NAMES[method]} 1", fontsize="small")
            axes.set_ylabel(f"{NAMES[method]} 2", fontsize="small")
            if column == 0:
                axes.set_ylabel(f"{route}\n{NAMES[method]} 2")
            xy, colours = panel.points[route], class_colours(size)[panel.labels]
            axes.scatter(xy[:, 0], xy[:, 1], c=colours, s=max(2, min(20, 6000 / len(xy))), linewidths=0)
    if 0 < len(classes) <= NAMED_CLASSES:
        add_class_legend(figure, classes, class_colours(size), Lettering(classes))
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
        RunError: If features are not finite.
    """
    if method == "umap":
        umap_module()  # before the features are computed, which may take long
    images = sample(splits.test, points)
    if len(images) < LEAST_IMAGES:
        raise ConfigError(f"{method} needs at least {LEAST_IMAGES} held-out images; there are {len(images)}")
    labels, classes = labels_and_classes(images, splits)
    features = extract(model, images, model.routes, workers=model.config.training.workers)
    knn1 = {route: leave_one_out(some.features, labels, model.device) for route, some in features.items()}
    return Projection(
        method,
        described_run(model.trained_config),
        seed,
        {route: embedded(some.features, method, seed=seed) for route, some in features.items()},
        {route: float(some.macs.mean()) / model.cost.dense_macs for route, some in features.items()},
        knn1 if classes else {},
        labels,
        classes,
        tuple(route for route, some in features.items() if collapsed(some.features)),
    )


def collapsed(features: FeatureArray) -> bool:
    """Whether features (n, d) are the same for all images, but for rounding."""
    return float(np.ptp(features, axis=0).max()) <= SPREAD * float(np.abs(features).max())


def embedded(features: FeatureArray, method: Method, *, seed: int = 0) -> Points:
    """Features (n, d) as points (n, 2) float32, neighbours near each other; one point where all features are the same.

    Args:
        features: At least 10 of them.
        method: ``umap`` (15 neighbours) or ``tsne`` (perplexity 30), fewer where there are few features.
        seed: Seed of the method.

    Raises:
        ConfigError: If umap-learn is needed and not installed.
    """
    n = len(features)
    if collapsed(features):  # of which t-SNE would end the process
        return np.zeros((n, 2), np.float32)
    # Both methods look at proportions alone, and fail where numbers are very small or large.
    features = features / np.abs(features).max()
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
