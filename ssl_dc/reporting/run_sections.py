"""What is shown of each run: what was run, what was reached, and what its network does with the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

from ssl_dc.config import dump
from ssl_dc.errors import ConfigError
from ssl_dc.evaluation.drawing import NAMED_CLASSES
from ssl_dc.evaluation.features import FeatureArray
from ssl_dc.evaluation.outcome import with_folder
from ssl_dc.evaluation.projection import LEAST_IMAGES, NAMES, Points, collapsed, embedded, umap_module
from ssl_dc.evaluation.report import ReportTable
from ssl_dc.reporting.charts import Point, bars, heat_map, scatter
from ssl_dc.reporting.images import thumbnail
from ssl_dc.reporting.measured import ALL_IMAGES, MeasuredRun, Projector
from ssl_dc.reporting.page import Block, Chart, Charts, Details, Gallery, Picture, Section, Tables, Text
from ssl_dc.reporting.recorded import RecordedRun
from ssl_dc.routes import Route
from ssl_dc.run_records import as_number

MAP_IMAGES = 500
"""Images on the map of features, at most: each brings its thumbnail."""
EACH_SIDE = 5
"""The cheapest images of a class that are shown, and the dearest."""
QUERIES = 8
"""Images whose neighbours are shown."""
NEAREST = 5
"""Neighbours that are shown of each."""
SHOWN_CLASSES = NAMED_CLASSES
"""Classes that have rows, colours and names of their own. Of more than these, the first ones have rows."""


def what_was_run(run: RecordedRun) -> Section:
    """The section that says what was run, and what it reached by its own account."""
    config, begun = run.config, run.begun.get("environment", {})
    budgets = config.budget.budgets
    rows = [
        ("folder", str(run.folder.path)),
        ("state", run.state),
        ("data", f"{config.data.name}, {config.data.image_size} px"),
        ("objective", config.objective.name),
        ("network", f"{config.backbone.in_words()}, encoder {config.encoder.name}, norms {config.norm.name}"),
        ("gating", config.gating.name + (f", budget {', '.join(f'{budget:g}' for budget in budgets)}" if budgets else "")),
        ("routes of the views", ", ".join(map(str, config.routes))),
        ("length", f"{config.training.epochs:,} epochs, {config.training.batch_size:,} images a step"),
        ("optimizer", f"{config.optimizer.name}, peak learning rate {config.optimizer.lr:g}"),
        ("seed", str(config.seed)),
        *_ran_on(begun if isinstance(begun, dict) else {}),
    ]
    blocks: list[Block] = [Tables([ReportTable("", ("", ""), rows)])]
    if run.routes:
        blocks.append(Tables([_reached(run)]))
    elif not run.lost_result and not run.damaged_result:  # which are said elsewhere
        blocks.append(Text("The run has no result yet: it is evaluated when its training ends."))
    blocks += [Text(fault) for fault in (*run.damage, run.damaged_result) if fault]
    blocks.append(Details("The whole config", dump(config)))
    return Section(f"Run {run.label}", blocks)


def _ran_on(environment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "device" in environment:
        yield "device", f"{environment['device']}, {environment.get('platform', '')}"
    versions = environment.get("versions")
    if isinstance(versions, dict):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())


def _reached(run: RecordedRun) -> ReportTable:
    result = run.result or {}
    some = any(found.get(name) is not None for found in run.routes.values() for name in ACCURACIES)
    accuracies = ACCURACIES if some else {}
    rows = [
        (route, *(_percent(found.get(name)) for name in accuracies), *_cost(found)) for route, found in run.routes.items()
    ]
    columns = ("route", *accuracies.values(), "MACs an image", "share of dense cost")
    advice = (with_folder(text, run.folder.path) for text in run.sentences("advice"))
    said = [*run.sentences("findings"), *(f"Next: {text}" for text in advice)]
    title = f"What the training reports, on {result.get('measured_on', 'its images')}"
    return ReportTable(title, columns, rows, note="\n".join(said))


ACCURACIES = {"knn1": "kNN-1 %", "knn1_untrained": "before training %"}
"""The fields of a route's result that are accuracies, and their columns. Without labels they hold nothing."""


def _percent(value: Any) -> str:
    found = as_number(value)
    return "-" if found is None else f"{found:.2f}"


def _cost(found: Any) -> tuple[str, str]:
    macs, ratio = as_number(found.get("macs")), as_number(found.get("ratio"))
    return ("-" if macs is None else f"{macs:,.0f}", "-" if ratio is None else f"{ratio:.4f}")


def cost_section(measured: MeasuredRun) -> Section:
    """The cost of each layer on both routes."""
    table = measured.cost()
    numbers, *_ = table.tables()  # the gate sites have a section of their own
    gated = "gated" if measured.shown_gated is None else str(measured.shown_gated)
    series = ("dense", gated) if measured.model.has_gates else ("dense",)
    points = []
    for row in table.rows:
        points.append((row.layer, "dense", float(row.dense_macs), f"{row.layer}, dense: {row.dense_macs:,} MACs"))
        if len(series) > 1:
            points.append((row.layer, gated, row.gated_macs, f"{row.layer}, {gated}: {row.gated_macs:,.0f} MACs"))
    dearest = max(table.rows, key=lambda row: row.dense_macs)
    summary = f"{len(table.rows)} layers cost {table.dense_macs:,} MACs on the dense route."
    if len(series) > 1:
        summary += (
            f" On the gated route they cost {table.gated_macs:,.0f}, {100 * table.ratio:.1f} % of it: {table.gated_is}."
        )
    summary += f" The dearest layer is {dearest.layer}, with {dearest.dense_macs:,} MACs."
    chart = Chart("Cost by layer", summary, bars(points, series=series, along="MACs an image"), numbers)
    return Section("Cost by layer", [Charts([chart], wide=True)], level=3)


def gates_section(measured: MeasuredRun) -> Section:
    """How often the gates are on, by layer and class."""
    if not measured.model.has_gates:
        return Section("Gates", [Text("This network has no gates, so every image costs the same.")], level=3)
    statistics = measured.gates()
    classes = measured.classes or ALL_IMAGES
    shown = [number for number in range(len(classes)) if (measured.labels == number).any()][:SHOWN_CLASSES]
    cells = [
        (site.site, classes[number], share, f"{site.site}, {classes[number]}: {100 * share:.1f} % of the channels are on")
        for number in shown
        for site in statistics.sites
        for share in [float(site.class_rates[number].mean())]
    ]
    most, least = (pick(statistics.sites, key=lambda site: site.rate) for pick in (max, min))
    summary = (
        f"Over all images {100 * statistics.whole.rate:.1f} % of the channels are on, on the {measured.shown_gated} route;"
        f" most in {most.site} ({100 * most.rate:.1f} %), fewest in {least.site} ({100 * least.rate:.1f} %)."
    )
    if len(classes) > len(shown):
        summary += f" {len(shown)} of {len(classes)} classes are shown."
    (used,) = statistics.tables()
    by_class = [
        [classes[number], *(f"{100 * float(site.class_rates[number].mean()):.1f}" for site in statistics.sites)]
        for number in shown
    ]
    numbers = ReportTable("Channels that are on, %", ("class", *(site.site for site in statistics.sites)), by_class)
    spec = heat_map(cells, along="gate site", upwards="class", of="share of the channels that are on")
    chart = Chart("Gates by layer and class", summary, spec, numbers)
    return Section("Gates", [Charts([chart], wide=True), Tables([used])], level=3)


def prices_section(measured: MeasuredRun) -> Section:
    """The images of each class that cost least, and most."""
    title = "Cheapest and dearest images"
    if not measured.model.has_gates:
        return Section(title, [Text("Without gates every image costs the same.")], level=3)
    ratios = measured.ratios
    if np.ptp(ratios) == 0:
        return Section(title, [Text(f"Every image costs the same: {ratios[0]:.4f} of the dense cost.")], level=3)
    classes = measured.classes or ALL_IMAGES
    rows: list[tuple[str, Sequence[Picture]]] = []
    for number in range(min(len(classes), SHOWN_CLASSES)):
        members = np.flatnonzero(measured.labels == number)
        ascending = members[np.argsort(ratios[members], kind="stable")]
        each = min(EACH_SIDE, len(ascending) // 2)
        for word, chosen in (("cheapest", ascending[:each]), ("dearest", ascending[::-1][:each])):
            pictures = [_priced(measured, int(one), float(ratios[one])) for one in chosen]
            if pictures:
                rows.append((f"{classes[number]}: {word}", pictures))
    left_out = "" if len(classes) <= SHOWN_CLASSES else f" The first {SHOWN_CLASSES} of {len(classes)} classes are shown."
    text = (
        f"On the {measured.shown_gated} route an image costs between {ratios.min():.4f} and {ratios.max():.4f} of the dense"
        f" cost, {ratios.mean():.4f} on average.{left_out}"
    )
    return Section(title, [Text(text), Gallery(rows)], level=3)


def _priced(measured: MeasuredRun, number: int, ratio: float) -> Picture:
    said = f"{_named(measured, number)}: {ratio:.4f} of the dense cost"
    return Picture(thumbnail(measured.images, number), said, f"{ratio:.4f}")


def _named(measured: MeasuredRun, number: int) -> str:
    """What an image is called, and its class where there are labels."""
    name = _name(measured, number)
    return f"{measured.classes[measured.labels[number]]}, {name}" if measured.classes else name


def _name(measured: MeasuredRun, number: int) -> str:
    """The number of an image, or the name of its file. Its folder is left out, since the page may be shared."""
    name = measured.images.name(number)
    return f"image {name}" if name.isdecimal() else PurePath(name).name


def map_section(measured: MeasuredRun, key: str, projector: Projector, thumbnails: dict[str, str]) -> Section:
    """Both routes' features in the plane, with the image of each point.

    Args:
        measured: The run.
        key: Begins the keys of its thumbnails.
        projector: How features are laid out.
        thumbnails: Takes up the thumbnails of the points.

    Raises:
        ConfigError: If UMAP is asked for and not installed.
    """
    title = "Map of the features"
    if len(measured.images) < LEAST_IMAGES:
        return Section(title, [Text(f"There are fewer than {LEAST_IMAGES} images, too few for a map.")], level=3)
    shown = np.unique(np.linspace(0, len(measured.images) - 1, min(MAP_IMAGES, len(measured.images))).astype(int))
    method, why = _method(projector)
    for number in shown:
        thumbnails[f"{key}-{number}"] = thumbnail(measured.images, int(number))
    charts = [_map(measured, route, shown, key, method) for route in measured.shown_routes]
    text = f"{len(shown)} images. Images whose features are alike lie near each other. {why}"
    return Section(title, [Text(text), Charts(charts, wide=True)], level=3)


def _method(projector: Projector) -> tuple[Literal["umap", "pca"], str]:
    """How features are laid out, and why so, in a sentence."""
    if projector == "pca":
        return "pca", "The axes are the two principal components (PCA)."
    try:
        umap_module()
    except ConfigError:
        if projector == "umap":
            raise
        why = "The axes are the two principal components (PCA), since UMAP is not installed: pip install 'ssl-dc[umap]'."
        return "pca", why
    return "umap", "The places are those of UMAP; each route is laid out by itself, so shapes compare, but places do not."


def _map(measured: MeasuredRun, route: Route, shown: Any, key: str, method: Literal["umap", "pca"]) -> Chart:
    features = measured.features[route].features[shown]
    places = principal(features) if method == "pca" else embedded(features, "umap")
    name = "PCA" if method == "pca" else NAMES[method]
    many = len(measured.classes) > SHOWN_CLASSES
    series = ALL_IMAGES if many or not measured.classes else measured.classes
    macs = measured.features[route].macs / measured.model.cost.dense_macs
    points, rows = [], []
    for number, (x, y) in zip(shown, places, strict=True):
        of = series[measured.labels[number]] if len(series) > 1 else series[0]
        about = f"{_named(measured, number)}\n{macs[number]:.4f} of the dense cost"
        points.append(Point(of, float(x), float(y), about, f"{key}-{number}"))
        rows.append((_named(measured, number), f"{x:.3f}", f"{y:.3f}", f"{macs[number]:.4f}"))
    table = ReportTable(f"{name}, {route}", ("image", f"{name} 1", f"{name} 2", "share of dense cost"), rows)
    summary = f"{name} of {len(shown)} images by their {route} features."
    if collapsed(features):
        summary += " THIS ROUTE HAS COLLAPSED: its features are the same for all images."
    elif many:
        summary += f" There are {len(measured.classes)} classes, too many for colours; each point names its class."
    spec = scatter(points, series=series, along=f"{name} 1", upwards=f"{name} 2")
    return Chart(f"{name}, {route} route", summary, spec, table)


def principal(features: FeatureArray) -> Points:
    """The two principal components of features (n, d): (n, 2) float32. The larger part of each axis points to the right."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[np.arange(2), np.abs(right[:2]).argmax(axis=1)])
    return np.asarray(left[:, :2] * sizes[:2] * signs, dtype=np.float32)


def neighbours_section(measured: MeasuredRun) -> Section:
    """The nearest other images of a few, on both routes."""
    title = "Neighbours"
    if len(measured.images) < 2:
        return Section(title, [Text("There is a single image, which has no neighbours.")], level=3)
    queries = _queries(measured)
    found = {route: measured.neighbours(route, queries, NEAREST) for route in measured.shown_routes}
    rows: list[tuple[str, Sequence[Picture]]] = []
    for place, query in enumerate(queries):
        for route in measured.shown_routes:
            asked = Picture(thumbnail(measured.images, query), f"asked for: {_named(measured, query)}", "asked for")
            near = [_neighbour(measured, query, int(number)) for number in found[route][place]]
            rows.append((f"{_named(measured, query)}: {route}", [asked, *near]))
    text = (
        f"The {NEAREST} images nearest to each of {len(queries)}, by the Euclidean distance of their features, among"
        f" {measured.measured_on}. The nearest stands first, after the image that is asked for."
    )
    return Section(title, [Text(text), Gallery(rows)], level=3)


def _queries(measured: MeasuredRun) -> list[int]:
    """A few images: the first one of each class, or some that are evenly spread."""
    if measured.classes:
        _, firsts = np.unique(measured.labels, return_index=True)
        return [int(number) for number in firsts[:QUERIES]]
    count = len(measured.images)
    return sorted({round(number) for number in np.linspace(0, count - 1, min(QUERIES, count))})


def _neighbour(measured: MeasuredRun, query: int, number: int) -> Picture:
    named = _named(measured, number)
    if not measured.classes:
        return Picture(thumbnail(measured.images, number), named, named)
    same = measured.labels[number] == measured.labels[query]
    caption = f"{'same' if same else 'other'}: {measured.classes[measured.labels[number]]}"
    return Picture(thumbnail(measured.images, number), f"{named} ({'same' if same else 'another'} class)", caption)
