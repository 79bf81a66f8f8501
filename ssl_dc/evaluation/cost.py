"""The cost of a network, dense and gated, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ssl_dc.assemble import build_data_set, network_at_any_budget
from ssl_dc.config import RunConfig
from ssl_dc.data.base import ImageSet, Splits
from ssl_dc.data.subsets import open_splits, sample
from ssl_dc.devices import AUTO, device_named
from ssl_dc.errors import DataError
from ssl_dc.evaluation.dialled import Budgets, dialled_once
from ssl_dc.evaluation.features import extract
from ssl_dc.evaluation.other_data import moved_data
from ssl_dc.evaluation.report import Report, ReportTable
from ssl_dc.gating.cost import CostModel
from ssl_dc.model import Model
from ssl_dc.routes import Route
from ssl_dc.run_folder import RunFolder
from ssl_dc.run_records import as_number, json_object

TRAINING_IMAGES = 1024
"""Number of training images that the cost is measured on if no images are held out."""


@dataclass(frozen=True)
class CostRow:
    """The cost of one layer for one image.

    Attributes:
        layer: The layer's name.
        dense_macs: MACs on the dense route; 0 for a gate, which the dense route does not run.
        gated_macs: Mean MACs on the gated route.
    """

    layer: str
    dense_macs: int
    gated_macs: float

    def cells(self) -> tuple[str, ...]:
        """The cells of a table's row."""
        share = f"{self.gated_macs / self.dense_macs:.3f}" if self.dense_macs else ""
        return (self.layer, f"{self.dense_macs:,}", f"{self.gated_macs:,.0f}", share)


@dataclass(frozen=True)
class SiteRow:
    """A gate site that has a gate.

    Attributes:
        site: The site's name.
        entries: Width of its mask.
        dense_macs: MACs of the layers whose cost the mask scales, on the dense route.
        open_share: Mean share of the mask that is open on the gated route; None if no images were looked at.
    """

    site: str
    entries: int
    dense_macs: int
    open_share: float | None


@dataclass(frozen=True)
class CostTable(Report):
    """Dense and gated cost of a network for one image.

    Attributes:
        network: The network, in words.
        gated_is: Which images the gated cost is of, in words.
        rows: The cost of each layer.
        dense_macs: MACs of the dense route.
        gated_macs: Mean MACs of the gated route.
        sites: The gate sites that have a gate.
        not_measured: Why the gated cost is not what images pay, where it should be; empty otherwise.
        is_least: Whether the gated cost is the least possible one, with every gate shut.
    """

    network: str
    gated_is: str
    rows: list[CostRow]
    dense_macs: int
    gated_macs: float
    sites: Sequence[SiteRow] = ()
    not_measured: str = ""
    is_least: bool = False

    @property
    def ratio(self) -> float:
        """Gated cost as a share of the dense cost."""
        return self.gated_macs / self.dense_macs

    def as_json(self) -> dict[str, Any]:
        """The cost as plain values."""
        return {
            "network": self.network,
            "gated_is": self.gated_is,
            "dense_macs": self.dense_macs,
            "gated_macs": round(self.gated_macs),
            "ratio": self.ratio,
            "layers": [
                {"layer": row.layer, "dense_macs": row.dense_macs, "gated_macs": round(row.gated_macs)} for row in self.rows
            ],
            "sites": [asdict(site) for site in self.sites],
        }

    def records(self) -> Sequence[Mapping[str, Any]]:
        """A row for each layer."""
        return [asdict(row) for row in self.rows]

    def tables(self) -> Sequence[ReportTable]:
        """The cost of each layer, and of all; then the gate sites."""
        gated, ratio, label = (
            ("least gated", "least / dense", "all (least)") if self.is_least else ("gated", "gated / dense", "all")
        )
        layers = [
            ReportTable(
                f"MACs for one image: {self.network}",
                ("layer", "dense", gated, ratio),
                [row.cells() for row in self.rows],
                total=(label, f"{self.dense_macs:,}", f"{self.gated_macs:,.0f}", f"{self.ratio:.4f}"),
                note=f"gated: {self.gated_is}",
            )
        ]
        return layers + ([self._table_of_sites()] if self.sites else [])

    def _table_of_sites(self) -> ReportTable:
        rows = [
            (
                site.site,
                f"{site.entries:,}",
                f"{site.dense_macs:,}",
                f"{site.dense_macs / self.dense_macs:.3f}",
                *(() if site.open_share is None else (f"{site.open_share:.3f}",)),
            )
            for site in self.sites
        ]
        columns: Sequence[str] = ("site", "mask", "dense MACs", "of all", "open")
        note = "mask: its width; dense MACs: those of the layers whose cost the open share of the mask scales"
        if any(site.open_share is None for site in self.sites):
            columns = columns[:-1]
            note += f"\nHow often gates are open depends on pictures{self._where_pictures_are}"
        return ReportTable(f"Gate sites: {len(rows)}", columns, rows, note=note)

    @property
    def _where_pictures_are(self) -> str:
        if self.not_measured:
            return ". Those of this run cannot be opened: add --data-root DIR if they have moved."
        return ": ssl-dc cost of a trained run shows it."


def cost_of_network(config: RunConfig) -> CostTable:
    """The cost of the network that a config names. Its gated cost is the lowest possible one, with every gate shut.

    The config's budget does not matter: a network may cost more with every gate shut.
    """
    return _least_cost(config, network_at_any_budget(config).cost)


def _least_cost(config: RunConfig, cost: CostModel) -> CostTable:
    shut = {site: np.zeros((1, entries)) for site, entries in cost.channels.items()}
    table = cost_table(config, cost, shut, "the least possible: every gate shut")
    return replace(table, sites=[replace(site, open_share=None) for site in table.sites], is_least=True)


def cost_of_run(
    folder: Path, device: str = AUTO, *, data_root: str | None = None, budget: Budgets | None = None
) -> CostTable:
    """The cost of a trained run. The gated cost is what its held-out images pay, or training images if none are held out.

    If the images are gone, the gated cost is the least possible one, and the table says what the images paid when the
    training ended.

    Args:
        folder: The run's folder.
        device: Where the gates decide, by name; the best device there is by default.
        data_root: Where the run's data is now, if it has moved.
        budget: Share of the dense cost that the gated route may pay, in place of the budget of training.

    Raises:
        ConfigError: If there is no run, or this machine has no such device.
        DataError: If ``data_root`` is given and the images are not there, or ``budget`` needs images to be calibrated on.
        RunError: If the run's training has not ended.
    """
    model = moved_data(RunFolder.existing(folder).load_model(device_named(device)), data_root)
    if budget is not None:
        model = dialled_once(model, budget)
    if not model.has_gates:
        return cost_table(model.config, model.cost, {}, "the dense cost: this network has no gates")
    try:
        images, described = cost_images(open_splits(build_data_set(model.config)))
    except DataError as error:
        if data_root is not None:
            raise
        return _without_images(model, RunFolder(folder), error)
    route = model.gated_route
    gated = extract(model, images, [route], workers=model.config.training.workers, keep_masks=True)[route]
    at = "" if model.gated_route.budget is None else f", at a budget of {model.gated_route.budget:g}"
    table = cost_table(model.config, model.cost, gated.masks, f"the mean over {described}{at}")
    return replace(table, gated_macs=float(gated.macs.mean()))  # the same but for float32's rounding


def _without_images(model: Model, run: RunFolder, error: DataError) -> CostTable:
    """The cost of a run whose images cannot be opened."""
    table = _least_cost(model.config, model.cost)
    paid = _recorded_ratio(run, model.gated_route)
    at_end = f"; images paid {paid:.4f} of the dense cost when the training ended" if paid is not None else ""
    return replace(table, gated_is=f"{table.gated_is}{at_end}", not_measured=f"what images pay is not measured: {error}")


def _recorded_ratio(run: RunFolder, route: Route) -> float | None:
    """What images paid on a route when the training ended, as a share of the dense cost; None if it was not recorded."""
    routes = (json_object(run.result_file) or {}).get("routes")
    reached = routes.get(str(route)) if isinstance(routes, dict) else None
    return as_number(reached.get("ratio")) if isinstance(reached, dict) else None


def cost_images(splits: Splits) -> tuple[ImageSet, str]:
    """The images that gates are measured on, and what they are in words: held-out images, or else training images."""
    if len(splits.test) > 0:
        return splits.test, f"{len(splits.test):,} held-out images"
    return sample(splits.train, TRAINING_IMAGES), "training images: none are held out"


def cost_table(config: RunConfig, cost: CostModel, masks: Mapping[str, npt.NDArray[Any]], gated_is: str) -> CostTable:
    """The mean cost of a network over images whose gates decide as given.

    Args:
        config: The network's config.
        cost: Its cost model.
        masks: For each gate site the masks of the images, (n, channels); none for the dense route.
        gated_is: Which images these are, in words.
    """
    of_sites = {site: torch.from_numpy(mask) for site, mask in masks.items()}
    rows = [
        CostRow(
            layer.name,
            0 if layer.gate else layer.macs,
            layer.macs * float(layer.open_share(of_sites).double().mean()),
        )
        for layer in cost.layers
    ]
    sites = [
        SiteRow(site, entries, sum(layer.macs for layer in cost.layers if site in layer.sites), float(masks[site].mean()))
        for site, entries in cost.channels.items()
    ]
    network = f"{config.backbone.in_words()}, {config.data.image_size} px, gating {config.gating.name}"
    return CostTable(network, gated_is, rows, cost.dense_macs, sum(row.gated_macs for row in rows), sites)
