"""What the gates do over a set of images: which channels are on, how often, for which classes, in which combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_dc.data.base import Labels
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.cost import cost_images
from ssl_dc.evaluation.drawing import NAMED_CLASSES, described_run, new_figure
from ssl_dc.evaluation.features import extract, labels_and_classes
from ssl_dc.evaluation.knn import leave_one_out
from ssl_dc.evaluation.lettering import Lettering
from ssl_dc.evaluation.options import GatesOptions
from ssl_dc.evaluation.other_data import of_other_data
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.evaluation.scores import own_splits
from ssl_dc.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEAD_BELOW = 0.01
"""A channel that is on for a smaller share of the images is dead."""

ALWAYS_ON_ABOVE = 0.99
"""A channel that is on for a larger share of the images is always on."""

Masks = npt.NDArray[np.bool_]
Rates = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SiteStatistics:
    """The masks of one gate site.

    Attributes:
        site: The site's name.
        rates: Activation rate of each channel, the share of images for which it is on: (channels,), in [0, 1].
        class_rates: The same over the images of each class: (classes, channels); NaN for a class without images.
        distinct_masks: How many different masks there are over all images.
        class_distinct_masks: The same over the images of each class, (classes,).
    """

    site: str
    rates: Rates
    class_rates: Rates
    distinct_masks: int
    class_distinct_masks: Counts

    @property
    def channels(self) -> int:
        """Width of the mask."""
        return len(self.rates)

    @property
    def rate(self) -> float:
        """Activation rate, mean over channels, hence over all bits of all masks."""
        return float(self.rates.mean())

    @property
    def dead(self) -> int:
        """How many channels are on for less than 1 % of the images."""
        return int((self.rates < DEAD_BELOW).sum())

    @property
    def always_on(self) -> int:
        """How many channels are on for more than 99 % of the images."""
        return int((self.rates > ALWAYS_ON_ABOVE).sum())

    @property
    def dynamic(self) -> int:
        """How many channels are neither dead nor always on: those that depend on the image."""
        return self.channels - self.dead - self.always_on

    @property
    def distinct_masks_a_class(self) -> float:
        """How many different masks a class uses, mean over the classes that have images."""
        return float(self.class_distinct_masks[self.class_distinct_masks > 0].mean())

    def row(self) -> tuple[str, ...]:
        """The statistics as a row of a table."""
        counts = (f"{count:,}" for count in (self.dead, self.always_on, self.dynamic, self.distinct_masks))
        channels, rate, a_class = f"{self.channels:,}", f"{100 * self.rate:.1f}", f"{self.distinct_masks_a_class:,.1f}"
        return (self.site, channels, rate, *counts, a_class)

    def record(self) -> dict[str, Any]:
        """The statistics that are single numbers."""
        names = ("site", "channels", "rate", "dead", "always_on", "dynamic", "distinct_masks", "distinct_masks_a_class")
        return {name: getattr(self, name) for name in names}

    def as_json(self) -> dict[str, Any]:
        """The statistics as plain values; a class without images has null for its rates."""
        return {
            **self.record(),
            "class_distinct_masks": self.class_distinct_masks.tolist(),
            "channel_rates": self.rates.tolist(),
            "class_channel_rates": [None if np.isnan(row).any() else row.tolist() for row in self.class_rates],
        }


class GatedRun(NamedTuple):
    """The gated route of a run, over the images that its gates are looked at on.

    Attributes:
        run: The run, in words.
        measured_on: The images, in words.
        ratio: Mean cost of the images, as a share of the dense cost.
        knn1_among_them: Share of the images whose nearest other one has their class, in percent; None without labels.
    """

    run: str
    measured_on: str
    ratio: float
    knn1_among_them: float | None

    def __str__(self) -> str:
        top1 = "" if self.knn1_among_them is None else f", kNN-1 {self.knn1_among_them:.1f} %"
        return f"{self.run}: gated, cost {self.ratio:.2f}{top1}"


@dataclass(frozen=True)
class GateStatistics(Report):
    """The masks of all gate sites of a network.

    Attributes:
        images: How many images they are of.
        classes: Names of the classes; one for all images without labels.
        sites: Each site, in the network's order.
        whole: All sites together, their masks put side by side into one.
        of: The run that they are of, where that is known.
    """

    images: int
    classes: tuple[str, ...]
    sites: tuple[SiteStatistics, ...]
    whole: SiteStatistics
    of: GatedRun | None = None

    def as_json(self) -> dict[str, Any]:
        """The statistics as plain values."""
        whole = self.whole.as_json()
        # Every channel is listed with its site; twice is once too many.
        del whole["channel_rates"], whole["class_channel_rates"]
        return {
            "protocol": "gates",
            **({} if self.of is None else self.of._asdict()),
            "test_images": self.images,
            "classes": list(self.classes),
            "all": whole,
            "sites": [site.as_json() for site in self.sites],
        }

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each site."""
        return [site.record() for site in self.sites]

    def tables(self) -> Sequence[ReportTable]:
        """How the gates of each site are used."""
        return [
            ReportTable(
                f"gates on {self._measured_on}",
                ("site", "channels", "on %", "dead", "always on", "dynamic", "distinct masks", "per class"),
                [site.row() for site in self.sites],
                total=self.whole.row(),
                note="dead: on for less than 1 % of the images; always on: for more than 99 %; dynamic: neither",
            )
        ]

    @property
    def _measured_on(self) -> str:
        return f"{self.images:,} images" if self.of is None else self.of.measured_on

    def draw(self) -> Figure:
        """The heat map: for each class and channel how often the channel is on."""
        return draw_gate_map(self)


def gates(model: Model, options: GatesOptions) -> GateStatistics:  # noqa: ARG001  # a protocol's signature
    """Run the protocol ``gates`` on the held-out images of the data set of the model's config.

    Without labels all images count as one class; where none are held out, training images are looked at.

    Raises:
        ConfigError: If the model has no gates.
        DataError: If the images cannot be opened.
    """
    if not model.has_gates:
        raise ConfigError(
            f"protocol gates: this model has no gates, it was trained with gating {model.config.gating.name!r}"
        )
    splits = own_splits(model)
    images, held_out = cost_images(splits)
    measured_on = f"{held_out}{of_other_data(model)}"
    labels, classes = labels_and_classes(images, splits)
    route = model.gated_route
    gated = extract(model, images, [route], workers=model.config.training.workers, keep_masks=True)[route]
    knn1 = leave_one_out(gated.features, labels, model.device) if classes else None
    of = GatedRun(described_run(model.trained_config), measured_on, float(gated.macs.mean()) / model.cost.dense_macs, knn1)
    return replace(gate_statistics(gated.masks, labels, classes or ("all images",)), of=of)


def gate_statistics(masks: Mapping[str, Masks], labels: Labels, classes: tuple[str, ...]) -> GateStatistics:
    """The statistics of masks.

    Args:
        masks: For each gate site the masks (n, channels); at least one site, at least one image.
        labels: Class of each image, (n,), in [0, len(classes)).
        classes: Names of the classes.

    Raises:
        ValueError: If there is no site, no image, or another number of labels than of images.
    """
    if not masks or any(len(mask) != len(labels) or not len(mask) for mask in masks.values()):
        raise ValueError("gate statistics need at least one site, with a mask for each of at least one labelled image")
    sites = tuple(_site(site, mask, labels, len(classes)) for site, mask in masks.items())
    whole = _site("all", np.concatenate(list(masks.values()), axis=1), labels, len(classes))
    return GateStatistics(len(labels), classes, sites, whole)


def _site(site: str, masks: Masks, labels: Labels, classes: int) -> SiteStatistics:
    by_class = [masks[labels == number] for number in range(classes)]
    nothing = np.full(masks.shape[1], np.nan)
    class_rates = np.stack([some.mean(axis=0) if len(some) else nothing for some in by_class])
    class_distinct = np.array([_distinct(some) for some in by_class], dtype=np.int64)
    return SiteStatistics(site, masks.mean(axis=0), class_rates, _distinct(masks), class_distinct)


def _distinct(masks: Masks) -> int:
    """How many different rows there are; as bytes, which is many times faster than NumPy's sorting of rows."""
    return len({row.tobytes() for row in np.packbits(masks, axis=1)})


def draw_gate_map(statistics: GateStatistics) -> Figure:
    """The heat map of gate statistics: for each class (row) and channel (column) how often the channel is on.

    Each site has a panel of its own; neighbouring sites of one channel, as whole-branch gates are, share one.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    maps = _maps(statistics.sites)
    classes = statistics.classes
    lettering = Lettering(classes)
    height = min(max(1.2, 0.14 * len(classes)), 4.0)
    figure = new_figure(10, (height + 0.75) * len(maps) + 1.1)
    if statistics.of is not None:
        figure.suptitle(f"Gates on {statistics.of.measured_on}\n{statistics.of}", fontsize="medium")
    grid = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axes, heat in zip(grid, maps, strict=True):
        image = axes.imshow(heat.rates, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
        axes.set_title(heat.title, fontsize="small", loc="left")
        axes.tick_params(labelsize="x-small")
        if heat.columns:
            axes.set_xticks(range(len(heat.columns)), heat.columns, rotation=25, ha="right")
        if len(classes) <= NAMED_CLASSES:
            axes.set_yticks(range(len(classes)), map(lettering.text, classes), fontfamily=lettering.families)
        axes.set_ylabel("class", fontsize="small")
        axes.set_xlabel("gate" if heat.columns else "channel", fontsize="small")
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
