"""What the gates do over a set of images: which channels are used, how often, for which classes, in which combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssl_dc.data.base import Labels
from ssl_dc.evaluation.drawing import draw_gate_map
from ssl_dc.evaluation.report import Report, ReportTable

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
        site: Its name.
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

    def as_json(self) -> dict[str, Any]:
        """The statistics as plain values; a class without images has null for its rates."""
        return {
            "site": self.site,
            "channels": self.channels,
            "rate": self.rate,
            "dead": self.dead,
            "always_on": self.always_on,
            "dynamic": self.dynamic,
            "distinct_masks": self.distinct_masks,
            "distinct_masks_a_class": self.distinct_masks_a_class,
            "class_distinct_masks": self.class_distinct_masks.tolist(),
            "channel_rates": self.rates.tolist(),
            "class_channel_rates": [None if np.isnan(row).any() else row.tolist() for row in self.class_rates],
        }


@dataclass(frozen=True)
class GateStatistics(Report):
    """The masks of all gate sites of a network.

    Attributes:
        images: How many images they are of.
        classes: Names of the classes.
        sites: Each site, in the network's order.
        whole: All sites together, their masks put side by side into one.
    """

    images: int
    classes: tuple[str, ...]
    sites: tuple[SiteStatistics, ...]
    whole: SiteStatistics

    def as_json(self) -> dict[str, Any]:
        """The statistics as plain values."""
        whole = self.whole.as_json()
        # Every channel is listed with its site; twice is once too many.
        del whole["channel_rates"], whole["class_channel_rates"]
        return {
            "protocol": "gates",
            "test_images": self.images,
            "classes": list(self.classes),
            "all": whole,
            "sites": [site.as_json() for site in self.sites],
        }

    def tables(self) -> Sequence[ReportTable]:
        """How the gates of each site are used."""
        return [
            ReportTable(
                f"gates on {self.images:,} held-out images",
                ("site", "channels", "on %", "dead", "always on", "dynamic", "distinct masks", "a class, mean"),
                [site.row() for site in self.sites],
                total=self.whole.row(),
                note="dead: on for less than 1 % of the images; always on: for more than 99 %; dynamic: neither",
            )
        ]

    def draw(self) -> Figure:
        """The heat map: for each class and channel how often the channel is on."""
        return draw_gate_map(self)


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
